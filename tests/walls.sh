#!/usr/bin/env bash
# Which module may import which: compares the imports of the sources with the table in tests/walls.txt.
#
#   ./tests/walls.sh            fails, and names each import that the table does not allow
#   ./tests/walls.sh --edges    prints the imports between modules as they are
#
# It reads text, so it sees imports behind features too, and needs no build. Tests may import everything. It also names each file
# that no `mod` declares: cargo does not compile it, and nobody would notice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TABLE=tests/walls.txt
# What a path that leaves a module can begin with.
ROOTS='crate|super|overlay|overlay_agent|overlay_dns|overlay_gossip|overlay_proto'

# The imports of a package, as `FILE<tab>PATH`. The root has the declarations of modules; what it imports is public.
imports() {
    find "$1" -name '*.rs' ! -name lib.rs ! -name main.rs ! -name tests.rs ! -path '*/tests/*' ! -name fixture.rs | LC_ALL=C sort |
        xargs awk -v ROOT="$1" -v PACKAGES="$ROOTS" -f tests/walls.awk
}

# The modules of a package: files and directories right below its root.
modules() {
    find "$1" -mindepth 1 -maxdepth 1 ! -name lib.rs ! -name main.rs ! -name tests.rs ! -name tests ! -name fixture.rs -printf '%f\n' |
        sed 's/\.rs$//' | LC_ALL=C sort -u
}

packages() { sed -n 's/^package //p' "$TABLE"; }

judge() {
    awk -F '\t' -v PACKAGE="$1" -v MODULES="$(modules "$1" | tr '\n' ' ')" -v TABLE="$TABLE" -v EDGES="${2-}" '
        function fail(text) { print text >"/dev/stderr"; bad = 1 }
        function stands_in(path, outer) { return path == outer || index(path, outer "::") == 1 }
        function split_words(text, words) { sub(/^ +/, "", text); return split(text, words, / +/) }

        function read_table(    line, words, n, i, mine, name) {
            while ((getline line <TABLE) > 0) {
                if (line ~ /^#/ || line ~ /^ *$/) continue
                n = split_words(line, words)
                if (words[1] == "package") { mine = words[2] == PACKAGE; continue }
                if (!mine) continue
                if (words[1] == "guarded") {
                    for (i = 2; i <= n; i++) guarded[words[i]] = 1
                } else if (words[1] == "except") {
                    if (n < 4) fail(TABLE ": an exception needs a reason: " line)
                    except[words[2] " " words[3]] = 1
                } else if (words[1] ~ /:$/) {
                    name = substr(words[1], 1, length(words[1]) - 1)
                    known[name] = 1
                    for (i = 2; i <= n; i++) may[name, i] = words[i]
                    count[name] = n
                } else fail(TABLE ": not understood: " line)
            }
        }

        function allowed(module, path,    i) {
            for (i = 2; i <= count[module]; i++)
                if (may[module, i] == "*" || stands_in(path, may[module, i])) return 1
            return 0
        }

        function excepted(module, path,    key, words) {
            for (key in except) {
                split(key, words, " ")
                if (words[1] == module && stands_in(path, words[2])) { used[key] = 1; return 1 }
            }
            return 0
        }

        BEGIN {
            read_table()
            n = split_words(MODULES, words)
            for (i = 1; i <= n; i++) {
                if (words[i] == "") continue
                present[words[i]] = 1
                if (!(words[i] in known)) fail(TABLE ": " PACKAGE " has a module `" words[i] "` that the table does not name")
            }
        }

        {
            module = substr($1, length(PACKAGE) + 2)
            sub(/\/.*|\.rs$/, "", module)
            path = $2
            if (sub(/^(crate|overlay_agent)::/, "", path)) {
                name = path
                sub(/::.*/, "", name)
                # What stands in the root itself is for everyone.
                if (!(name in present) || name == module) next
            } else {
                name = ""
                for (outer in guarded) if (stands_in(path, outer)) name = outer
                if (name == "") next
            }
            if (EDGES) { print module " -> " name; next }
            if (!allowed(module, path) && !excepted(module, path))
                fail($1 ": `" module "` may not import `" path "`: see " TABLE)
        }

        END {
            if (!EDGES) for (key in except) if (!(key in used)) {
                split(key, words, " ")
                fail(TABLE ": `" words[1] "` does not import `" words[2] "` any more: remove the exception")
            }
            exit bad
        }'
}

# A table with a circle allows what no house should have.
circles() {
    awk -v PACKAGE="$1" '
        $1 == "package" { mine = $2 == PACKAGE }
        mine && $1 ~ /:$/ { for (i = 2; i <= NF; i++) if ($i !~ /::|^overlay_|\*/) print substr($1, 1, length($1) - 1), $i }
    ' "$TABLE" | tsort >/dev/null
}

# The sources that no `mod` declares. Cargo finds the roots of programs, examples and tests by itself.
orphans() {
    local file parent directory name
    find agent dns overlay proto tests -name '*.rs' | LC_ALL=C sort | while read -r file; do
        directory=$(dirname "$file") name=$(basename "$file" .rs)
        case $name in lib | main | mod | build) continue ;; esac
        case $directory in */src/bin) continue ;; esac
        if [ -e "$(dirname "$directory")/Cargo.toml" ] && [ "$(basename "$directory")" != src ]; then continue; fi
        for parent in "$directory.rs" "$directory"/{mod,lib,main}.rs; do
            if [ -e "$parent" ] && grep -qE "^ *(pub(\\([a-z ]+\\))? )?mod $name;" "$parent"; then continue 2; fi
        done
        echo "$file: no \`mod\` declares it, so nothing compiles it: declare it or delete it"
    done
}

bad=0
if [ "${1-}" != --edges ]; then
    undeclared=$(orphans)
    if [ -n "$undeclared" ]; then
        echo "$undeclared" >&2
        bad=1
    fi
fi
for package in $(packages); do
    if [ "${1-}" = --edges ]; then
        echo "$package"
        imports "$package" | judge "$package" edges | LC_ALL=C sort | uniq -c
    else
        imports "$package" | judge "$package" || bad=1
        if ! circles "$package"; then
            echo "$TABLE: the modules of $package form a circle" >&2
            bad=1
        fi
    fi
done
exit "$bad"
