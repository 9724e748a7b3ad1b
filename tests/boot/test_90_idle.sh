#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
# alone
#
# What an idle Debian costs the host. The figure is printed; only a guest that spins fails.

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
percent=$(((after - before) * 100 / 20 / $(getconf CLK_TCK)))
echo "# an idle Debian takes $percent % of one processor"
[ "$percent" -lt 40 ]
ok $? "an idle Debian leaves the host alone ($percent %)"
vm_off 200
