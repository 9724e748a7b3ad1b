#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# maru status: of a VM that halts, of what is no VM, and of one that lies.

. "$(dirname "$0")/lib.sh"

pid=
at_end()
{
	[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
}

# says FILE TEXT… — the file has them all.
says()
{
	local file=$1
	shift
	for text; do
		grep -qF -- "$text" "$file" || { echo "no '$text'" >>"$dir/err"; return 1; }
	done
}

multiboot "$dir/halt.bin" '\xfa\xf4\xeb\xfd'
head -c 1M /dev/zero >"$dir/disk.img"
mkdir "$dir/folder"
"$maru" run --kernel "$dir/halt.bin" --engine bt --memory 64M --serial none --paravirt off --ksm --control "$dir/ctl" \
	--disk "$dir/disk.img,readonly=on" --share "stuff=$dir/folder" --port "name=org.example.0,unix:$dir/port" </dev/null >"$dir/vm" 2>&1 &
pid=$!
# The control socket is there before the VM runs.
for _ in $(seq 100); do
	timeout 20 "$maru" status "$dir/ctl" >"$dir/out" 2>"$dir/err" && grep -q running "$dir/out" && break
	sleep 0.1
done
says "$dir/out" 'halt.bin' 'running, up 0:00:' 'the translator: --engine bt was given; no paravirtual' 'cpus      1' '64 MiB' 'are merged' \
	'no driver for it' 'disk.img: 1 MiB, read-only; 0 bytes read' \
	'net       52:54:00:12:34:56: 0 bytes in 0 packets received, 0 dropped; 0 bytes in 0 packets sent, 0 dropped' 'stuff' 'org.example.0, not opened' 'sandbox'
result $? "status for people"
said=0
grep -q '^ksm .*does not run on this host' "$dir/out" && said=1
still=0
[ ! -r /sys/kernel/mm/ksm/run ] || [ "$(</sys/kernel/mm/ksm/run)" = 1 ] || still=1
[ $said = $still ]
result $? "whether KSM runs is as this host has it"
timeout 20 "$maru" status "$dir/ctl" -o json >"$dir/out" 2>"$dir/err"
perl -MJSON::PP -0777 -e '
	my $s = decode_json(<STDIN>);
	die unless $s->{engine} eq "bt" && $s->{engine_reason} =~ /given/ && $s->{memory} == 64 << 20 && !$s->{paravirt} &&
		$s->{disks}[0]{readonly} && $s->{disks}[0]{size} == 1 << 20 && $s->{shares}[0]{tag} eq "stuff" &&
		@{$s->{nets}} == 1 && $s->{nets}[0]{mac} eq "52:54:00:12:34:56" && $s->{nets}[0]{from_guest_bytes} == 0 &&
		exists $s->{host_memory}{merged} && $s->{balloon}{actual} == 64 << 20;' <"$dir/out" 2>>"$dir/err"
result $? "status as JSON"
timeout 20 "$maru" balloon "$dir/ctl" 1G >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && says "$dir/err" 'from 32 MiB to 64 MiB, which is all of its memory'
result $? "a balloon target beyond the VM's memory is refused in a person's units"
perl -MSocket -e '
	for (1 .. 15) { # and maru run
		my $s;
		socket($s, PF_UNIX, SOCK_STREAM, 0) && connect($s, pack_sockaddr_un($ARGV[0])) && <$s> =~ /greeting/ or die "no place for $_\n";
		push @all, $s;
	}
	system("timeout", "10", @ARGV[1 .. $#ARGV]);
	exit $? >> 8;' "$dir/ctl" "$maru" status "$dir/ctl" >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && says "$dir/err" "16 programs are connected to the VM's control socket"
result $? "one that has no place for another client says so"
timeout 20 "$maru" status "$dir/ctl" >"$dir/out" 2>"$dir/err"
result $? "and has one again"
kill -STOP "$(pgrep -P "$pid" -x maru-vm)"
timeout 30 "$maru" status "$dir/ctl" >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && says "$dir/err" 'does not answer'
result $? "a VM that hangs is said to"
# More than can wait to be taken.
perl -MSocket -MFcntl -e '
	for (1 .. 80) {
		my $s;
		socket($s, PF_UNIX, SOCK_STREAM, 0) && fcntl($s, F_SETFL, O_NONBLOCK) or die "$!\n";
		connect($s, pack_sockaddr_un($ARGV[0])) or last;
		push @all, $s;
	}
	system("timeout", "10", @ARGV[1 .. $#ARGV]);
	exit $? >> 8;' "$dir/ctl" "$maru" status "$dir/ctl" >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && says "$dir/err" 'does not answer'
result $? "and is not waited for with the others who do"
timeout -s KILL 10 "$maru" run --kernel "$dir/halt.bin" --net none --control "$dir/ctl" </dev/null >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && says "$dir/err" 'in use by another program'
result $? "its socket is its own, too"
kill -KILL "$pid" "$(pgrep -P "$pid" -x maru-vm)"
{ wait "$pid"; } 2>/dev/null
pid=

# refused TEXT ARGUMENT…
refused()
{
	local text=$1
	shift
	timeout 20 "$maru" status "$@" >"$dir/out" 2>"$dir/err"
	[ $? = 2 ] && [ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" = 1 ] && says "$dir/err" "$text"
	result $? "status $*: $text"
}
refused "needs the name"
refused "one word too many" a b
refused "no VM named 'nobody'" nobody
refused "-o takes json" nobody -o yaml
refused "unknown option '--all'" --all
refused "No such file" "$dir/nothing"
refused "cannot reach the VM" "$dir/halt.bin"

# What answers in its place: REPLY are the members of its answer.
liar()
{
	rm -f "$dir/liar"
	perl -MIO::Socket::UNIX -e '
		my $l = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die "$!\n";
		my $s = $l->accept;
		my ($id) = <$s> =~ /"id": ?"([^"]*)"/;
		print $s qq({"id":"$id",$ARGV[1]}\n);' "$dir/liar" "$1" &
	pid=$!
	for _ in $(seq 100); do [ -S "$dir/liar" ] && break; sleep 0.1; done
	timeout 20 "$maru" status "$dir/liar" >"$dir/out" 2>"$dir/err"
	status=$?
	wait "$pid"
	pid=
}
liar '"ok":true,"result":{"name":"\u001b[2J\u009b","state":7,"engine":[],"engine_reason":"\u0007","memory":-1,"disks":[1,{"name":"\u001b","errors":1e9}],"nets":[7,{"mac":"\u001b","to_guest":-1,"to_guest_bytes":"\u001b"}],"shares":{},"ports":"x","sandbox":{"a\u001b":"\u001b"},"balloon":[]}'
[ "$status" = 0 ] && ! LC_ALL=C grep -qP '[\x00-\x09\x0b-\x1f\x80-\xff]' "$dir/out"
result $? "what a VM says cannot play with the terminal"
liar '"ok":true,"result":[]'
[ "$status" = 2 ] && says "$dir/err" 'makes no sense'
result $? "an answer that is none"
liar '"ok":false,"error":"no\u001b[2J\u009b\r"'
[ "$status" = 2 ] && says "$dir/err" 'maru: no' && ! LC_ALL=C grep -qP '[\x00-\x09\x0b-\x1f\x80-\xff]' "$dir/err"
result $? "nor can its refusal"
liar '"ok":false,"error":7'
[ "$status" = 2 ] && says "$dir/err" 'makes no sense'
result $? "a refusal without a reason"

finish_tests
