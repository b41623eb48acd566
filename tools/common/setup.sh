# Shell functions of tools/quickstart and tools/test. README.md says what each package is for.

BUILD_PACKAGES=(build-essential cmake pkg-config libpcre2-dev libinih-dev libjansson-dev libcairo2-dev
    libhwloc-dev libnuma-dev)
TEST_PACKAGES=(libcmocka-dev python3)

# need_packages NAME...: installs those that are missing; as root, or through sudo.
need_packages() {
    local missing=() name sudo=()
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}; this is no Debian system, install their like by hand" >&2
        exit 1
    fi
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    echo "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# build FOLDER CMAKE-SETTING... [-- TARGET...]: configures and builds; quiet unless there is work or an error.
build() {
    local folder=$1 settings=() log
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        settings+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    log=$(mktemp)
    if ! cmake -S . -B "$folder" "${settings[@]}" >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
    rm -f "$log"
    [ $# -eq 0 ] || set -- --target "$@"
    # pipefail: a failed build ends the script, also when grep lets nothing through.
    cmake --build "$folder" -j "$(nproc)" "$@" |
        { grep -v -e 'Built target' -e 'Building' -e 'Scanning' || true; }
}
