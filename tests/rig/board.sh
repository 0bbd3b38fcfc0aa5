#!/bin/sh
# The board behind ssh or adb: executes a line of the client's; programs for 64-bit Arm run on the emulated core.
# RIG is the rig's folder: `disk` is the board's own, `programs` come before this host's, `faults` is a test's.
PATH="$RIG/programs:$PATH" TMPDIR="$RIG/disk" LINE=$1
export PATH TMPDIR
. "$RIG/faults"
exec sh -c "$(printf '%s' "$LINE" | sed "s#lib/ld-linux-aarch64#$RIG/core lib/ld-linux-aarch64#")"
