#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# maru doctor on this host: for people, as JSON, and where things are missing.

. "$(dirname "$0")/lib.sh"

timeout 60 "$maru" doctor >"$dir/out" 2>"$dir/err"
[ $? = 0 ] && [ ! -s "$dir/err" ] && grep -q '^--engine auto uses ' "$dir/out" && grep -q '^Virtual machines can run here' "$dir/out"
result $? "doctor says that VMs can run, and by which engine"
[ "$(wc -l <"$dir/out")" -le 40 ]
result $? "on one screen"

timeout 60 "$maru" doctor -o json >"$dir/json" 2>"$dir/err"
[ $? = 0 ] && perl -MJSON::PP -0777 -e '
	my $d = decode_json(<STDIN>);
	my ($e, $k, $b) = @$d{qw(engine kvm bt)};
	die "engine\n" unless $e->{chosen} =~ /^(bt|kvm)$/ && length $e->{reason};
	die "kvm\n" unless JSON::PP::is_bool($k->{present}) && JSON::PP::is_bool($k->{usable}) && exists $k->{ns_per_iteration};
	die "a /dev/kvm that is not there\n" if !-e "/dev/kvm" && ($k->{present} || $e->{chosen} ne "bt");
	die "bt\n" unless $b->{usable} && $b->{ns_per_iteration} > 0 && $b->{native_ns_per_iteration} > 0;
	my %c;
	for my $c (@{$d->{checks}}) {
		$c{$c->{name}} = $c;
		die "$c->{name}\n" unless JSON::PP::is_bool($c->{ok}) && length $c->{detail} && ($c->{ok} xor length $c->{fix});
	}
	for my $name (qw(cpu limits kvm translator memory hugepages ksm tun bridge nftables user-namespaces landlock seccomp io_uring firmware disk)) {
		die "no check $name\n" unless $c{$name};
	}
' <"$dir/json" 2>>"$dir/err"
result $? "as JSON, with a sentence for each lack"

mkdir "$dir/alone"
cp "$maru" "$dir/alone/"
timeout 60 "$dir/alone/maru" doctor >"$dir/out" 2>"$dir/err"
[ $? = 2 ] && grep -q maru-vm "$dir/err"
result $? "without maru-vm it says so: $(<"$dir/err")"
[ ! -w /dev/full ] || { ! timeout 60 "$maru" doctor >/dev/full 2>"$dir/err" && grep -q 'standard output' "$dir/err"; }
result $? "output that cannot be written is an error"
for wrong in "-o" "-o xml" "--json" "now"; do
	# shellcheck disable=SC2086
	timeout 60 "$maru" doctor $wrong >"$dir/out" 2>"$dir/err"
	[ $? = 2 ] && [ ! -s "$dir/out" ] && grep -q 'takes .*json' "$dir/err"
	result $? "doctor $wrong is refused"
done

# What auto finds out about a KVM is kept below a folder that need not be there; without a KVM there is nothing to keep.
multiboot "$dir/exit.bin" '\xb8\x03\x00\x00\x00\xba\xf4\x00\x00\x00\xef\xf4'
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
	for _ in 1 2; do
		XDG_RUNTIME_DIR='' XDG_CACHE_HOME=$dir/not/yet timeout 60 "$maru" run --kernel "$dir/exit.bin" --debug-exit --net none \
			--serial none --memory 32M --verbose 2>"$dir/err"
	done
	grep -q boot_id "$dir/not/yet/maru/kvm-probe.json"
	result $? "auto keeps what it found out: $(grep 'engine' "$dir/err" | head -n 1)"
else
	timeout 60 "$maru" run --kernel "$dir/exit.bin" --debug-exit --net none --serial none --memory 32M --verbose 2>"$dir/err"
	grep -q '^maru: engine bt: .*/dev/kvm' "$dir/err"
	result $? "auto says why it takes the translator: $(grep '^maru: engine' "$dir/err")"
fi

finish_tests
