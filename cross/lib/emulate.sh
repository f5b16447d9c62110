# emulate.sh: running a target's programs on this machine. Sourced after common.sh.

libc_suite=bookworm

# libc_folder ARCH: a folder with Debian's libc for an architecture, as the root of a file system.
libc_folder() {
    # The last has the copyright of libgcc-s1.
    local packages="libc6:$1 libgcc-s1:$1 ca-certificates:all gcc-12-base:$1" folder
    folder=$cache/libc-$libc_suite-$1-$(printf '%s' "$packages" | sha256sum | cut -c1-12)
    # shellcheck disable=SC2086 # a list of packages
    once "$folder" debian_packages "$libc_suite" $packages || die "cannot fetch Debian's libc for $1"
    echo "$folder"
}

# emulator ARCH: the words before a program that run it here, by qemu where that is needed.
emulator() {
    local qemu found folder
    case $1 in
    arm64) qemu=qemu-aarch64 ;;
    armhf) qemu=qemu-arm ;;
    amd64) qemu=qemu-x86_64 ;;
    esac
    [ "$1" = "$(host_arch)" ] && return
    # Debian 14 has it by the shorter name only.
    found=$(command -v "$qemu-static" || command -v "$qemu") ||
        die "$qemu-static is missing: install qemu-user-static (where there is none any more, qemu-user)"
    folder=$(libc_folder "$1") || exit 1
    echo "$found -L $folder"
}

# Debian's name of this machine's architecture.
host_arch() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    armv7l) echo armhf ;;
    *) uname -m ;;
    esac
}
