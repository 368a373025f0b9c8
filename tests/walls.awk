# Prints the paths that Rust sources import: one a line, as `FILE<tab>PATH`, with `{...}` spelt out and `super` resolved.
# ROOT is the directory of the package's sources; PACKAGES are the names that paths may begin with, beside `crate` and `super`.
# POSIX awk.

function blank() { while (substr(text, at, 1) == " ") at++ }

function word(    rest) {
    rest = substr(text, at)
    if (!match(rest, /^[A-Za-z0-9_]+/)) return ""
    at += RLENGTH
    return substr(rest, 1, RLENGTH)
}

# Reads a path at the current place; BEFORE is what it stands in.
function path(before,    name) {
    blank()
    if (substr(text, at, 1) == "{") {
        at++
        for (;;) {
            blank()
            if (at > length(text)) return
            if (substr(text, at, 1) == "}") { at++; return }
            path(before)
            # `as NAME` says nothing of what is imported.
            while (at <= length(text) && substr(text, at, 1) !~ /[,}]/) at++
            if (substr(text, at, 1) == ",") at++
        }
    }
    if (substr(text, at, 1) == "*") { at++; found(before "::*"); return }
    name = word()
    if (name == "") { found(before); return }
    if (name != "self") before = before == "" ? name : before "::" name
    if (substr(text, at, 2) == "::" && substr(text, at + 2, 1) != "<") { at += 2; path(before) } else found(before)
}

# The module of FILE is as many steps below the root of its package as its path has parts.
function found(name,    up) {
    up = 0
    while (sub(/^super(::|$)/, "", name)) up++
    if (up > 0 && up < depth) return
    if (up > 0) name = "crate::" name
    print file "\t" name
}

# Where the paths of a whole file are.
function scan(    rest) {
    at = 1
    while (match(rest = substr(text, at), "(^|[^A-Za-z0-9_:])(" PACKAGES ")(::| *;| as )")) {
        at += RSTART - 1
        if (substr(text, at, 1) !~ /[A-Za-z0-9_]/) at++
        path("")
    }
}

FNR == 1 { finish(); file = FILENAME; text = "" }
{
    sub(/\/\/.*/, "")
    text = text " " $0
}
END { finish() }

function finish(    below) {
    if (file == "") return
    below = substr(file, length(ROOT) + 2)
    depth = gsub("/", "/", below) + 1
    scan()
}
