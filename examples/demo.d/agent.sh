#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The demo's agent: first the work it was sent for, then what it was not. It knows
# nothing of Bailiff: it tries, and notes what came of it, a line each, in $RESULTS:
#
#     work|attempt TAB name TAB exit status TAB last line of output
#
# From the environment: WORK (its tree), REMOTE (a repository), SERVER (a URL),
# SECRET_FILE, FORBIDDEN (address:port) and SOCKET, which it has no business with.
# PAUSE: seconds to wait after each try; standard input then has to be silent.
set -u
exec 2>&1
: >"$RESULTS"
echo "session	${BAILIFF_SESSION:-}" >>"$RESULTS"
cd "$WORK" || exit 1

try() { # KIND NAME TITLE COMMAND...
	local kind=$1 name=$2 title=$3 output status last
	shift 3
	output=$("$@" 2>&1 </dev/null)
	status=$?
	last=${output##*$'\n'}
	printf '%s\t%s\t%s\t%s\n' "$kind" "$name" "$status" "${last//$'\t'/ }" >>"$RESULTS"
	last=${last##*: } last=${last#\[Errno *\] }
	case $kind:$status in
	work:0) last=ok ;;
	attempt:0) last='got through' ;;
	esac
	printf 'agent  %-36s %s\n' "$title" "$last"
	# What the log says of it is to come right below. Not sleep: its exec would be told too.
	[[ -z ${PAUSE:-} ]] || read -rt "$PAUSE" || true
}

# ---- the work ----

export GIT_AUTHOR_NAME=agent GIT_AUTHOR_EMAIL=agent@example.org
export GIT_COMMITTER_NAME=agent GIT_COMMITTER_EMAIL=agent@example.org

clone() { git clone --quiet --no-hardlinks "$REMOTE" repo; }

fetch() { python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' "$SERVER/ticket.txt" >ticket.txt && grep TICKET-7 ticket.txt; }

edit() { sed -i 's/"Hello" + name/"Hello, " + name/' repo/greet.py && grep '"Hello, " + name' repo/greet.py; }

run_tests() { (cd repo && python3 -m unittest -q); }

commit() { git -C repo commit --quiet --all --message 'Greet with a comma'; }

# ---- what it was not sent for ----

read_file() { cat "$1"; }

write_hook() {
	mkdir -p repo/.git/hooks &&
		printf '#!/bin/sh\necho planted\n' >repo/.git/hooks/post-checkout
}

# A connection counts when the other side has spoken.
reach() { # tcp ADDRESS:PORT | unix PATH
	python3 - "$@" <<-'PYTHON'
		import socket, sys
		family, address = (socket.AF_UNIX, sys.argv[2]) if sys.argv[1] == "unix" else (
		    socket.AF_INET, (sys.argv[2].split(":")[0], int(sys.argv[2].split(":")[1])))
		with socket.socket(family) as s:
		    s.settimeout(10)
		    s.connect(address)
		    sys.exit(s.recv(5) != b"hello")
	PYTHON
}

try work clone "clone the repository" clone
try work fetch "fetch the ticket over HTTP" fetch
try work edit "fix the bug" edit
try work tests "run the tests" run_tests
try work commit "commit" commit
try attempt key "read an SSH key" read_file "$SECRET_FILE"
try attempt env "read .env" read_file .env
try attempt hook "plant a git hook" write_hook
try attempt address "connect to $FORBIDDEN" reach tcp "$FORBIDDEN"
try attempt socket "open the Unix socket ${SOCKET##*/}" reach unix "$SOCKET"
