# shellcheck shell=bash disable=SC2154,SC2016
# To be sourced. Makes programs of a later Debian suite run on this machine, without changing the machine.
# The programs come with the C library that they were built for; each finds it by its interpreter and its run path.
# `work` names an empty directory.

log() { echo "$@" >&2; }

# Sets `apt`: the options of an apt that knows only those suites, and no installed package. Packages of SOURCE have the highest priority,
# in whatever suite they are. With kind=deb-src it knows source packages.
apt_of() { # "SUITE..." [SOURCE]
    local mirror suite
    command -v patchelf >/dev/null || { log "patchelf is missing: apt-get install patchelf"; exit 1; }
    mirror() { apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | sed -n 1p; }
    mirror=$(mirror)
    if [ -z "$mirror" ]; then apt-get -qq update >&2 && mirror=$(mirror); fi
    [ -n "$mirror" ] || { log "no Debian mirror is configured"; exit 1; }
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    : >"$work/status"
    for suite in $1; do echo "${kind:-deb} $mirror $suite main"; done >"$work/sources.list"
    printf 'Package: src:%s\nPin: release *\nPin-Priority: 990\n' "${2:-none}" >"$work/preferences"
    apt=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences="$work/preferences" -o Dir::Etc::preferencesparts=/dev/null
        -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work"
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
        -o Acquire::Retries=3 -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update >&2
}

with_dependencies() { # PACKAGE...: prints the names of these packages and of their dependencies
    apt-get "${apt[@]}" --no-install-recommends -s install "$@" | awk '$1 == "Inst" {print $2}'
}

unpack() { # PACKAGE...: unpacks them below $work/unpacked
    local file
    (cd "$work/archives" && apt-get "${apt[@]}" download "$@" >&2)
    for file in "$work"/archives/*.deb; do dpkg -x "$file" "$work/unpacked"; done
}

collect_libraries() { # DIRECTORY: copies all unpacked libraries into it
    mkdir -p "$1"
    find "$work"/unpacked/lib* "$work"/unpacked/usr/lib* -maxdepth 2 \( -name '*.so' -o -name '*.so.*' \) \
        -exec cp -aL -t "$1" {} + 2>/dev/null || true
}

run_with() { # LIBRARIES FILE...: makes the programs among the files use the libraries of that directory
    local libraries=$1 file
    shift
    for file; do
        [ "$(head -c 4 "$file")" = $'\x7fELF' ] || continue
        patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" "$file"
    done
}
