#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
# alone
#
# What an idle Debian costs the host: processor time, and memory beside the guest's own and translated code. The
# figures are printed; what fails is far from what they should be.

. "$(dirname "$0")/../guest/lib.sh"

# Processor time (ticks) of maru and all it started, that is, of our process group but for this shell.
ticks()
{
	cat "/proc/$(<"$scratch/pid")/stat" /proc/[0-9]*/stat 2>/dev/null | perl -e '
		my $root = shift;
		my (%parent, %used);
		while (<STDIN>) {
			my ($pid, $rest) = /^(\d+) \(.*\) (.*)/ or next;
			my @f = split / /, $rest;
			$parent{$pid} = $f[1];
			$used{$pid} = $f[11] + $f[12];
		}
		my $sum = 0;
		for my $pid (keys %used) {
			my $p = $pid;
			$p = $parent{$p} while defined $p && $p != $root && $p > 1;
			$sum += $used{$pid} if defined $p && $p == $root;
		}
		print $sum;' "$(<"$scratch/pid")"
}

guest_debian
vm_start --cpus 2 --memory 1G
vm_boot 400
vm_run 300 'systemctl is-system-running --wait'
sleep 15
before=$(ticks)
sleep 20
after=$(ticks)
permille=$(((after - before) * 1000 / 20 / $(getconf CLK_TCK)))
percent=$((permille / 10)).$((permille % 10))
echo "# an idle Debian takes $percent % of one processor"
[ "$permille" -lt 50 ]
ok $? "an idle Debian leaves the host alone ($percent %)"

# Of the VM process, whose maps are root's to read.
vm=$(pgrep -P "$(<"$scratch/pid")" -x maru-vm)
if beside=$(awk '/^[0-9a-f]+-/ { ours = !/maru-(ram|code)/ } /^Pss:/ && ours { kb += $2 }
	END { print int(kb / 1024) }' "/proc/$vm/smaps" 2>/dev/null); then
	echo "# and $beside MiB of memory beside the guest's and translated code"
	[ "$beside" -lt 128 ]
	ok $? "it takes $beside MiB of the host's memory for itself"
else
	ok 0 "its memory # SKIP the maps of the VM process cannot be read"
fi
vm_off 200
