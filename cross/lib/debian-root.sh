# debian-root.sh: a whole Debian of another architecture, to install packages in and to start programs by chroot. Needs root.
# Sourced after common.sh.

root_suite=bookworm
# What our packages depend on, and systemd for `systemd-analyze`; it does not run.
root_packages=adduser,systemd

# binfmt ARCH: has the kernel start programs of an architecture by qemu, from now until the script ends. Fails where it cannot.
binfmt() {
    local name place=/proc/sys/fs/binfmt_misc
    case $1 in
    arm64) name=qemu-aarch64 ;;
    armhf) name=qemu-arm ;;
    *) return 0 ;;
    esac
    [ "$(id -u)" = 0 ] && [ -f "/usr/lib/binfmt.d/$name.conf" ] || return 1
    # One run at a time: the first to end would take it from the other.
    if [ -z "$binfmt_lock" ]; then
        binfmt_lock=none
        { exec 8>/run/godwit-binfmt.lock; } 2>/dev/null || return 1
        flock -n 8 || { echo "waiting for another run to end, which holds /run/godwit-binfmt.lock" >&2 && flock -w 1800 8; } || return 1
        binfmt_lock=held
    fi
    [ "$binfmt_lock" = held ] || return 1
    if [ ! -f $place/register ]; then
        mount -t binfmt_misc none $place 2>/dev/null || return 1
        binfmt_undo="$binfmt_undo umount $place;"
    fi
    [ -f "$place/$name" ] && return
    cat "/usr/lib/binfmt.d/$name.conf" >$place/register || return 1
    binfmt_undo="echo -1 >$place/$name; $binfmt_undo"
}
binfmt_undo='' binfmt_lock=''

# debian_root ARCH: the path of a fresh Debian, in the cache. Copy it before you change it.
debian_root() {
    local folder
    folder=$cache/root-$1-$(printf '%s' "$root_suite $root_packages" | sha256sum | cut -c1-12)
    once "$folder" fetch_root "$1" || return
    echo "$folder"
}

fetch_root() {
    local log=$2.log debs=${2%.part}.fetched
    mkdir -p "$debs"
    debootstrap --cache-dir="$debs" --arch="$1" --variant=minbase --include="$root_packages" "$root_suite" "$2" "$(debian_mirror)" >"$log" 2>&1 ||
        { tail -n 30 "$log" >&2 && return 1; }
    rm -rf "$2"/var/cache/apt/archives/*.deb "$2"/var/lib/apt/lists/*_* "$log"
}

# newer_package DEB NEWER: the same package with a higher version, and a configuration that says more; made in `$work`.
newer_package() {
    local folder
    folder=$(mktemp -d -p "$work")
    dpkg-deb -R "$1" "$folder/tree"
    sed -i "s/^Version: .*/&+newer/" "$folder/tree/DEBIAN/control"
    find "$folder/tree/etc" -name '*.toml' -exec sed -i '$a # what the newer one says besides' {} + 2>/dev/null || true
    dpkg-deb --root-owner-group -Znone -b "$folder/tree" "$2" >/dev/null
    rm -rf "$folder"
}
