# toolchain.sh: a Rust compiler that knows the targets, and zig, which links for an old glibc. Sourced after common.sh.
#
# The compiler is rustup's where rustup has all targets or can add them. Else it is Debian's (suite `testing`), unpacked into the
# cache and started from there: nothing is installed, rustup's own is left alone. Both it and zig are kept by what they were made
# from; `toolchain_lock` says exactly what that was.

rust_suite=testing
rust_packages="rustc libstd-rust-dev libstd-rust-dev:arm64 libstd-rust-dev:armhf +libstd-rust-dev>libstd-rust-[0-9.]+$"
zig_pins=$root/cross/lib/zig.txt

# use_toolchain TARGET…: sets RUSTC and PATH, and all else that cargo needs to build for the targets.
use_toolchain() {
    local key folder
    command -v cargo >/dev/null || die "cargo is missing: see https://rustup.rs"
    # Those of the caller's own compiler do not fit another.
    unset RUSTC RUSTC_WORKSPACE_WRAPPER CARGO_ENCODED_RUSTFLAGS
    key=$(printf '%s %s' "$rust_suite" "$rust_packages" | sha256sum | cut -c1-12)
    folder=$cache/rust-debian-$key
    if ! has_std rustc "$@"; then
        if [ ! -d "$folder" ] && command -v rustup >/dev/null && rustup target add "$@" >/dev/null 2>&1 && has_std rustc "$@"; then
            :
        elif [ "$(uname -m)" = x86_64 ]; then
            [ -d "$folder" ] || echo "rustup cannot add $*: fetching Debian's compiler into $folder" >&2
            # shellcheck disable=SC2086 # a list of packages
            once "$folder" debian_rust $rust_packages || die "cannot fetch Debian's compiler"
            export RUSTC=$folder/rustc
            has_std "$RUSTC" "$@" || die "Debian's compiler in $folder has no standard library for all of: $*"
        else
            die "no standard library for all of $*: rustup target add $*"
        fi
    fi
    folder=$cache/zig-$(sha256sum <"$zig_pins" | cut -c1-12)
    once "$folder" fetch_zig || die "cannot fetch zig and cargo-zigbuild from PyPI"
    zig_folder=$folder
    export PATH=$folder/bin:$PATH CARGO_ZIGBUILD_ZIG_PATH=$folder/ziglang/zig
    export CARGO_ZIGBUILD_CACHE_DIR=$cache/zigbuild ZIG_GLOBAL_CACHE_DIR=$cache/zig-libraries
    # What was compiled is kept by the compiler that did it and by the checkout: cargo goes by the times of files, and those of another
    # checkout mean nothing.
    export CARGO_TARGET_DIR=${GODWIT_CROSS_TARGET_DIR:-$cache/target-$("${RUSTC:-rustc}" -V | cut -d' ' -f2)-$(sha256sum <<<"$root" | cut -c1-8)}
}

# has_std RUSTC TARGET…
has_std() {
    local rustc=$1 target libraries
    shift
    for target; do
        libraries=$("$rustc" --print target-libdir --target "$target" 2>/dev/null) || return
        compgen -G "$libraries/libstd-*.rlib" >/dev/null || return
    done
}

debian_rust() {
    local folder=${*: -1}
    debian_packages "$rust_suite" "$@" || return
    # Started by the loader and libraries that it was made for. Not by LD_LIBRARY_PATH: the linker would inherit it.
    cat >"$folder/rustc" <<'SCRIPT'
#!/bin/sh
t=$(dirname "$0")
lib=$t/usr/lib/x86_64-linux-gnu
exec "$lib/ld-linux-x86-64.so.2" --argv0 "$t/usr/bin/rustc" --library-path "$lib:$t/usr/lib" "$t/usr/bin/rustc" --sysroot "$t/usr" "$@"
SCRIPT
    chmod +x "$folder/rustc"
}

fetch_zig() {
    local folder=$1
    echo "fetching zig and cargo-zigbuild from PyPI into ${folder%.part}" >&2
    python3 -m venv "$folder/.venv" &&
        "$folder/.venv/bin/pip" install --quiet --require-hashes --only-binary :all: --target "$folder" -r "$zig_pins" &&
        rm -rf "$folder/.venv"
}

# What the compilers are and were made from, one a line: name, version, SHA-256 where it was fetched.
toolchain_lock() {
    echo "rustc $("${RUSTC:-rustc}" -V | cut -d' ' -f2-)"
    echo "cargo $(cargo -V | cut -d' ' -f2-)"
    [ -z "${RUSTC:-}" ] || sed 's/^/debian /' "$(dirname "$RUSTC")/packages.lock"
    awk '/^[a-z]/ { split($1, a, "=="); name = a[1] " " a[2] } /--hash/ { sub(/.*sha256:/, ""); sub(/ .*/, ""); print "pypi", name, $0 }' "$zig_pins"
}
