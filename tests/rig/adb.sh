#!/bin/sh
# Stands in for adb where there is no phone: shell lines, push and pull work on the rig's disk in place of
# /data/local/tmp. RIG is the rig's folder, BOARD the script that executes a line there.
here() { printf '%s' "$1" | sed "s#/data/local/tmp#$RIG/disk#g"; }
[ "$1" = -s ] || { echo "adb: error: the stand-in needs -s SERIAL" >&2; exit 1; }
[ "$2" = emulated-1 ] || { echo "error: device '$2' not found" >&2; exit 1; }
shift 2
case $1 in
shell) RIG=$RIG exec sh "$BOARD" "$(here "$3")" ;;
push) cp -R "$2" "$(here "$3")" || { echo "adb: error: failed to copy '$2'" >&2; exit 1; } ;;
pull) cp "$(here "$2")" "$3" || { echo "adb: error: failed to copy '$2'" >&2; exit 1; } ;;
*) echo "adb: unknown command $1" >&2; exit 1 ;;
esac
