# common.sh: what the scripts of cross/ share: where things are kept, the names of the targets, how progress is shown.
# Sourced, from any folder; sets `root` to the checkout and `cache` to a folder outside it.

unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
cache=$(realpath -m "${GODWIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/godwit}")
dist=$(realpath -m "${GODWIT_DIST:-$root/dist}")
targets="aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf x86_64-unknown-linux-gnu"
# The oldest glibc that our binaries run on: Debian 10, Ubuntu 18.10, RHEL 8, Yocto 3.0.
oldest_glibc=2.28
export PATH=$PATH:/usr/sbin:/sbin

# These names are parts of the flags of C compilers, which know no quotes.
for folder in "$cache" "${CARGO_HOME:-$HOME/.cargo}" "${GODWIT_CROSS_TARGET_DIR:-}"; do
    [[ $folder != *[[:space:]]* ]] || { echo "a folder with a blank in its name cannot be used: $folder" >&2 && exit 2; }
done

# Debian's name of a target's architecture.
debian_arch() {
    case $1 in
    aarch64-unknown-linux-gnu) echo arm64 ;;
    armv7-unknown-linux-gnueabihf) echo armhf ;;
    x86_64-unknown-linux-gnu) echo amd64 ;;
    *) die "no target $1; there are: $targets" ;;
    esac
}

# The folder of an architecture's libraries in Debian.
multiarch() {
    case $1 in
    arm64) echo aarch64-linux-gnu ;;
    armhf) echo arm-linux-gnueabihf ;;
    amd64) echo x86_64-linux-gnu ;;
    esac
}

# The file of a program: the command is `godwit`, the others have their crate's name.
program_name() {
    [ "$1" = cli ] && echo godwit || echo "godwit-$1"
}

# The version in Cargo.toml.
version_of() { sed -nE 's/^version = "(.*)"/\1/p' "$root/Cargo.toml" | head -n 1; }

# The time that all files get: of the last commit, so that the same commit gives the same bytes; without a repository that of Cargo.toml.
commit_seconds() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    elif ! [ -e "$root/.git" ] || ! git -C "$root" log -1 --format=%ct; then
        echo "no commit to be read in $root: files get the time of Cargo.toml, and another checkout gives other bytes" >&2
        stat -c %Y "$root/Cargo.toml"
    fi
}

# The first lines of a script, from its name to the first line that is no comment: its help.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# step NAME COMMAND…: runs it and says how long it took. No condition around it: `set -e` must hold in COMMAND.
step() {
    local name=$1 begun=$SECONDS
    shift
    printf -- '-- %s\n' "$name" >&2
    "$@"
    printf -- '-- %s: %d s\n' "$name" $((SECONDS - begun)) >&2
}

# once FOLDER COMMAND…: has COMMAND fill a new folder, given as its last argument, and only then gives it its name. What was cut
# short leaves nothing behind that could be taken for whole; two at a time do not meet. What COMMAND keeps beside it, in FOLDER.fetched, is
# there when it is started again.
once() {
    local folder=$1
    shift
    [ -d "$folder" ] && return
    mkdir -p "$(dirname "$folder")"
    (
        flock 9
        [ -d "$folder" ] && exit
        rm -rf "$folder.part" && mkdir "$folder.part" && "$@" "$folder.part" && mv "$folder.part" "$folder" && rm -rf "$folder.fetched"
    ) 9>"$folder.lock"
}

# The address of a Debian mirror: as this machine's own apt knows it, else Debian's own. Signatures are checked whatever it is.
debian_mirror() {
    if [ -n "${GODWIT_DEBIAN_MIRROR:-}" ]; then
        echo "$GODWIT_DEBIAN_MIRROR"
        return
    fi
    local found
    # Not those of others, whose addresses end alike.
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        grep -E '^(deb .* main( |$)|URIs:)' | grep -oE ' ((mirror\+)?https?://[^/ ]+|file://[^ ]*)/debian/?( |$)' | head -n 1 | tr -d ' ')
    found=${found:-http://deb.debian.org/debian}
    echo "${found%/}"
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# debian_apt SUITE STATE PROGRAM ARGUMENT…: apt-get or apt-cache with a state of its own in the folder STATE, for the architectures
# in STATE/architectures; the machine's packages are neither asked nor changed, signatures are checked.
debian_apt() {
    local suite=$1 state=$2 program=$3 mirror arch archs=()
    shift 3
    mirror=$(debian_mirror)
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$state/sources.list"
    while read -r arch; do archs+=(-o "APT::Architectures::=$arch"); done <"$state/architectures"
    "$program" "${archs[@]}" -o APT::Architecture="$(head -n 1 "$state/architectures")" -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$state" \
        -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o Dir::State::status=/dev/null \
        -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=3 "$@"
}

# debian_packages SUITE PACKAGE… FOLDER: fetches packages, unpacks them into FOLDER, and writes name, version and SHA-256 of each to
# FOLDER/packages.lock. `+NAME` stands for the package with all that it needs; `NAME>PATTERN` for the one that NAME needs and
# whose name matches PATTERN (a regular expression), `+NAME>PATTERN` for that one with all that it needs.
debian_packages() {
    local suite=$1 folder=${*: -1} package plus sum packages=() status=0
    local apt=${folder%.part}.fetched
    for package in apt-get dpkg-deb; do
        command -v "$package" >/dev/null || die "$package is missing: Debian's packages are fetched by it"
    done
    [ -f "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
    # A package that came whole is not fetched again. apt believes what lies there if only its size is right.
    mkdir -p "$apt/debs"
    # Those that the packages name; amd64 where one names none, but for packages that are for all.
    for package in "${@:2:$#-2}"; do
        package=${package%%>*}
        case $package in
        *:all) ;;
        *:*) echo "${package##*:}" ;;
        *) echo amd64 ;;
        esac
    done | sort -u >"$apt/architectures"
    debian_apt "$suite" "$apt" apt-get -q update >"$apt/log" 2>&1 || status=1
    for package in "${@:2:$#-2}"; do
        [ "$status" -eq 0 ] || break
        if [[ $package == *'>'* ]]; then
            plus=${package%%[^+]*}
            package=${package#+}
            package=$plus$(debian_apt "$suite" "$apt" apt-cache depends "${package%%>*}" | grep -oE "${package#*>}" | head -n 1) || status=1
        fi
        if [[ $package == +* ]]; then
            debian_apt "$suite" "$apt" apt-get -q -y --no-install-recommends --print-uris install "${package#+}" >"$apt/uris" 2>>"$apt/log" ||
                status=1
            mapfile -t -O "${#packages[@]}" packages < <(
                sed -nE "s/^'[^']*' ([^_]+)_.*_([a-z0-9]+)\\.deb .*/\\1:\\2/p" "$apt/uris" | sed 's/:all$//'
            )
        else
            packages+=("${package%:all}")
        fi
    done
    # It names only those that are not in the folder where it is called.
    [ "$status" -eq 0 ] && (cd "$apt" && debian_apt "$suite" "$apt" apt-get -q download --print-uris "${packages[@]}") >"$apt/uris" 2>>"$apt/log" &&
        (cd "$apt/debs" && debian_apt "$suite" "$apt" apt-get -q download "${packages[@]}") >>"$apt/log" 2>&1 ||
        { cat "$apt/log" >&2 && return 1; }
    sed -nE "s/^'[^']*' ([^ ]+\\.deb) [0-9]+ SHA256:([0-9a-f]{64})$/\\2  \\1/p" "$apt/uris" | LC_ALL=C sort -u -k 2 >"$apt/sums"
    (cd "$apt/debs" && sha256sum --check --quiet ../sums) >&2 || { rm -rf "$apt/debs" && echo "damaged on the way: start it again" >&2 && return 1; }
    while read -r sum package; do
        package=$apt/debs/$package
        dpkg-deb -x "$package" "$folder" || return 1
        echo "$(dpkg-deb -W --showformat='${Package}:${Architecture} ${Version}' "$package") $sum"
    done <"$apt/sums" >"$folder/packages.lock"
    [ -s "$folder/packages.lock" ]
}
