#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
#
# maru doctor and maru run where something that hosts usually have is missing: each says a clear sentence, and nothing crashes. What is
# taken away is taken away in namespaces of the test's own.

. "$(dirname "$0")/lib.sh"

multiboot "$dir/exit.bin" '\xb8\x03\x00\x00\x00\xba\xf4\x00\x00\x00\xef\xf4' # mov eax,3; mov edx,0xf4; out; hlt
head -c 1M /dev/zero >"$dir/disk.img"
run() { "$maru" run --kernel "$dir/exit.bin" --debug-exit --memory 32M --serial none --net none "$@"; }
doctor() { "$maru" doctor; }
export maru dir
export -f run doctor

# says STATUS TEXT HOST COMMAND… — on this host the command ends so, and says the text. on[HOST] is what a shell does to make the host, in
# $namespace. What it says goes through a pipe, for a limit on files may be part of the host.
declare -A on=()
namespace=()
says()
{
	local status=$1 text=$2 host=$3 got
	shift 3
	# shellcheck disable=SC2016
	timeout -s KILL 60 "${namespace[@]}" bash -c 'cd "$dir" && eval "$1" && shift && "$@"' says "${on[$host]-$host}" "$@" </dev/null 2>&1 |
		cat >"$dir/err"
	got=${PIPESTATUS[0]}
	[ "$got" = "$status" ] && { [ -z "$text" ] || grep -qF -- "$text" "$dir/err"; }
	result $? "$host: ${1##*/} ${2-}: ${text:-works} (status $got)"
}

# ---- The environment ----

says 7 '' 'unset HOME XDG_RUNTIME_DIR XDG_CACHE_HOME' run
says 0 'set HOME or XDG_CACHE_HOME to an absolute path' 'unset HOME XDG_CACHE_HOME' doctor
says 0 'set HOME or XDG_CACHE_HOME to an absolute path' 'unset XDG_CACHE_HOME; HOME=here' doctor
says 2 'set HOME or XDG_CACHE_HOME to an absolute path' 'unset XDG_CACHE_HOME; HOME=here' "$maru" run debian:12
says 7 '' 'export TMPDIR=/nonexistent HOME=/nonexistent XDG_RUNTIME_DIR=/nonexistent; unset XDG_CACHE_HOME' run
says 7 '' 'exec <&- >&-' run

# ---- Limits ----

says 2 'raise `ulimit -v`' 'ulimit -v 4000000' run
says 1 'raise what ulimit -v shows' 'ulimit -v 4000000' doctor
says 2 'the limit on file sizes (`ulimit -f`) is less; raise it' 'ulimit -f 10000' run
says 1 'raise what ulimit -f shows' 'ulimit -f 0' "$maru" doctor -o json
says 2 'File too large' 'ulimit -f 0' "$maru" image create "$dir/new.qcow2" 1G
says 1 'raise what ulimit -d -n shows' 'ulimit -d 1000; ulimit -n 8' doctor
says 2 'Too many open files' 'ulimit -n 8' run
for stack in 128 64 32 unlimited; do
	says 7 '' "ulimit -s $stack" run
	says 7 '' "ulimit -s $stack" run --net user --share "all=$dir" --disk "$dir/disk.img" --cpus 2 --engine bt
done
says 7 '' 'ulimit -Ss 64' run

# ---- A container ----

namespace=(unshare --user)
if "${namespace[@]}" true 2>/dev/null; then
	on['no mapping of users']=true
	says 0 'no user in its own user namespace' 'no mapping of users' doctor
	says 7 '' 'no mapping of users' run
fi
namespace=(unshare --user --map-root-user --mount)
if "${namespace[@]}" true 2>/dev/null; then
	says 0 'not known: /sys is not mounted' 'mount -t tmpfs none /sys' doctor
	says 7 '' 'mount -t tmpfs none /sys' run
	says 2 'is /proc mounted?' 'mount -t tmpfs none /proc' doctor
	says 2 'is /proc mounted?' 'mount -t tmpfs none /proc' run
	says 7 '' 'mount -t tmpfs none /dev' run
	mkdir "$dir/home"
	on['a read-only home']='mount --bind home home && mount -o remount,bind,ro home && export HOME=$dir/home && unset XDG_RUNTIME_DIR XDG_CACHE_HOME'
	says 0 'home, which is read-only' 'a read-only home' doctor
	says 7 '' 'a read-only home' run
	says 2 'image pull' 'a read-only home' "$maru" run debian:12
	mkdir -p "$dir/cgroup/memory"
	echo 134217728 | tee "$dir/cgroup/memory.max" >"$dir/cgroup/memory/memory.limit_in_bytes"
	echo 0 | tee "$dir/cgroup/memory.current" >"$dir/cgroup/memory/memory.usage_in_bytes"
	says 1 'BAD  memory           128 MiB of 128 MiB available' 'mount --bind cgroup /sys/fs/cgroup' doctor

	# A /dev/kvm that is none is not asked again until another one is there; whatever is in place of what was kept is no trouble.
	id=$(cat /proc/sys/kernel/random/boot_id)
	on['something else as /dev/kvm']='mount -t tmpfs none /mnt && touch /mnt/kvm /mnt/null && mount --bind /dev/null /mnt/null && mount --bind /dev/null /mnt/kvm &&
		mount --rbind /mnt /dev && export XDG_RUNTIME_DIR=$dir/kept'
	kept=$dir/kept/maru/kvm-probe.json
	says 7 'engine bt: /dev/kvm does not answer as KVM does' 'something else as /dev/kvm' run --verbose
	grep -q "$id" "$kept"
	result $? "what was found out is kept"
	sed -i 's/does not answer as KVM does/was asked before/' "$kept"
	says 7 'engine bt: /dev/kvm was asked before' 'something else as /dev/kvm' run --verbose
	sed -i 's/"device":"[^"]*"/"device":"0:0:0"/' "$kept"
	says 7 'does not answer as KVM does' 'something else as /dev/kvm' run --verbose
	for garbage in '' '[]' '{"boot_id":7}' "{\"boot_id\":\"$id\",\"kvm\":{\"good\":true,\"reason\":\"x\",\"ns_per_iteration\":1}}" \
		"$(printf '[%.0s' {1..100000})"; do
		printf %s "$garbage" >"$kept"
		says 7 'does not answer as KVM does' 'something else as /dev/kvm' run --verbose
	done
	rm "$kept"
	mkfifo "$kept"
	says 7 'does not answer as KVM does' 'something else as /dev/kvm' run --verbose
	rm "$kept"
	mkdir "$kept"
	says 7 'does not answer as KVM does' 'something else as /dev/kvm' run --verbose
fi

finish_tests
