# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the scripts of the catalogue share: messages, the cache, locking, and the host's apt configuration.
#
# The cache is ${XDG_CACHE_HOME:-~/.cache}/maru. Work is done in a folder whose name starts with a dot, under a lock,
# and appears under its own name by one rename. A run that was killed leaves such a folder; the next one that holds
# the lock removes it.

set -euo pipefail
umask 022
export LC_ALL=C.UTF-8
# Administration programs (mke2fs) are not in an ordinary user's path on Debian.
PATH=$PATH:/usr/sbin:/sbin

me=${0##*/}
work=		# the unfinished folder, removed on the way out
child=		# the long-running program, leader of a process group that is ended on the way out

say()
{
	printf '%s: %s\n' "$me" "$*"
}

die()
{
	printf '%s: %s\n' "$me" "$*" >&2
	exit 1
}

clean_up()
{
	local status=$?
	trap '' INT TERM HUP
	if [ -n "$child" ]; then
		# It has files and mounts of its own to remove; give it the time.
		kill -TERM -- "-$child" 2>/dev/null || true
		for _ in $(seq 100); do
			kill -0 -- "-$child" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
		# fakeroot's daemon has left the group; what run() put into its environment still tells that it is ours.
		local environment
		for environment in $(grep -lsxzF "MARU_PULL=$work" /proc/[0-9]*/environ 2>/dev/null); do
			environment=${environment#/proc/}
			kill -KILL "${environment%/*}" 2>/dev/null || true
		done
	fi
	if [ -n "$work" ]; then
		# A guest's folders may be without the right to write.
		find "$work" -xdev -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null || true
		rm -rf --one-file-system "$work"
	fi
	exit "$status"
}
trap clean_up EXIT
trap 'echo >&2; say "interrupted" >&2; exit 130' INT
trap 'exit 143' TERM HUP

cache_folder()
{
	local base=${XDG_CACHE_HOME:-}
	case $base in
	/*) ;;
	*) base=${HOME:?HOME is not set: set it or XDG_CACHE_HOME}/.cache ;;
	esac
	printf '%s/maru\n' "$base"
}

# run COMMAND… — in a process group of its own, so that all of it can be ended at any time, without the lock's descriptor.
run()
{
	local status=0
	MARU_PULL=$work setsid "$@" </dev/null 9>&- &
	child=$!
	wait "$child" || status=$?
	child=
	return "$status"
}

# need PROGRAM:PACKAGE… — all that is missing is named at once, with the command that gets it.
need()
{
	local pair missing=()
	for pair; do
		command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
	done
	[ ${#missing[@]} -eq 0 ] ||
		die "missing on this machine: ${missing[*]} (apt-get install --no-install-recommends ${missing[*]})"
}

# take_lock FILE — until this process ends. Descriptor 9 is closed for every long-running child.
take_lock()
{
	exec 9>"$1"
	if ! flock -n 9; then
		say "another pull of this is under way; waiting for it"
		flock 9
	fi
}

# host_sources SUITE — one-line entries ("deb [options] URI SUITE main") for the Debian release SUITE, its updates and
# security fixes, as this host's apt has them: from sources.list and from the deb822 files.
host_sources()
{
	local list parts
	list=$(apt-config shell f Dir::Etc::sourcelist/f); eval "$list"; list=${f:-/etc/apt/sources.list}
	parts=$(apt-config shell d Dir::Etc::sourceparts/d); eval "$parts"; parts=${d:-/etc/apt/sources.list.d/}
	local files=()
	for f in "$list" "$parts"*.list "$parts"*.sources; do
		[ ! -r "$f" ] || files+=("$f")
	done
	[ ${#files[@]} -gt 0 ] || return 0
	awk -v suite="$1" '
	function entry(uri, name, comps, signed, trusted,   opt, m) {
		if (name !~ "^" suite "(-updates|-security|/updates)?/?$" || comps !~ /(^| )main( |$)/)
			return
		if (uri !~ /^(https?|file|copy|mirror\+https?|mirror\+file|mirror):/)
			return
		opt = signed ? "signed-by=" signed : ""
		if (trusted == "yes")
			opt = opt (opt ? " " : "") "trusted=yes"
		print "deb " (opt ? "[" opt "] " : "") uri " " name " main"
	}
	function stanza(   u, s, i, j, nu, ns) {
		if (f["types"] ~ /(^| )deb( |$)/ && f["enabled"] != "no") {
			nu = split(f["uris"], u, " "); ns = split(f["suites"], s, " ")
			gsub(/ +/, ",", f["signed-by"])
			# A key written into the stanza itself cannot be passed on: the keyrings decide then.
			if (f["signed-by"] !~ /^\//)
				f["signed-by"] = ""
			for (i = 1; i <= nu; i++)
				for (j = 1; j <= ns; j++)
					entry(u[i], s[j], f["components"], f["signed-by"], f["trusted"])
		}
		split("", f)
	}
	FNR == 1 { stanza(); deb822 = FILENAME ~ /\.sources$/; key = "" }
	/^[ \t]*#/ { next }
	deb822 && /^[ \t]*$/ { stanza(); next }
	deb822 && /^[ \t]/ { sub(/^[ \t]+/, ""); f[key] = f[key] " " $0; next }
	deb822 {
		key = tolower(substr($0, 1, index($0, ":") - 1))
		value = substr($0, index($0, ":") + 1)
		gsub(/^[ \t]+|[ \t]+$/, "", value)
		f[key] = value
		next
	}
	$1 == "deb" {
		signed = trusted = ""
		line = $0
		if (match(line, /\[[^]]*\]/)) {
			n = split(substr(line, RSTART + 1, RLENGTH - 2), o, " ")
			for (i = 1; i <= n; i++) {
				if (o[i] ~ /^signed-by=/) signed = substr(o[i], 11)
				if (o[i] ~ /^trusted=/) trusted = substr(o[i], 9)
			}
			line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
		}
		sub(/#.*/, "", line)
		n = split(line, w, " ")
		comps = ""
		for (i = 4; i <= n; i++) comps = comps " " w[i]
		entry(w[2], w[3], comps, signed, trusted)
	}
	END { stanza() }' "${files[@]}"
}

# debian_sources SUITE MIRROR — what to build from: MIRROR when given, else what the host uses.
debian_sources()
{
	local found
	if [ -n "$2" ]; then
		printf 'deb %s %s main\ndeb %s %s-updates main\n' "$2" "$1" "$2" "$1"
		return
	fi
	found=$(host_sources "$1" | sort -u)
	if grep -q " $1/\? main$" <<<"$found"; then
		printf '%s\n' "$found"
	else
		die "this host's apt has no source of Debian's $1: name one with --mirror URL"
	fi
}

# host_apt_options — how this host reaches its mirror (proxies, certificates, retries, clock checks), as apt.conf lines.
host_apt_options()
{
	apt-config dump | grep -E '^Acquire::(http|https|ftp|ForceIPv|Retries|Check-Valid-Until|Check-Date|Queue-Mode)' || true
	printf 'Acquire::Languages "none";\nAcquire::Retries "3";\n'
	local f
	for f in /etc/apt/auth.conf; do
		[ ! -r "$f" ] || printf 'Dir::Etc::netrc "%s";\n' "$f"
	done
	[ ! -r /etc/apt/auth.conf.d ] || printf 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";\n'
}
