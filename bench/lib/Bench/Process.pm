# SPDX-License-Identifier: Apache-2.0
#
# What a process and its descendants use.

package Bench::Process;

use strict;
use warnings;
use POSIX qw(sysconf _SC_CLK_TCK);

# family(PID) — it and all that descend from it: { process id => name }.
sub family {
	my ($root) = @_;
	my (%parent, %name);
	for my $stat (glob '/proc/[0-9]*/stat') {
		open(my $f, '<', $stat) or next;
		my ($pid, $comm, $parent) = (readline($f) // '') =~ /^(\d+) \((.*)\) \S (\d+)/ or next;
		($parent{$pid}, $name{$pid}) = ($parent, $comm);
	}
	my %family;
	for my $pid (keys %parent) {
		my $p = $pid;
		$p = $parent{$p} while defined $p && $p != $root && $p > 1;
		$family{$pid} = $name{$pid} if defined $p && $p == $root;
	}
	return %family;
}

# cpu_seconds(PID, …) — of these processes and their children that were waited for.
sub cpu_seconds {
	my $ticks = 0;
	for my $pid (@_) {
		open(my $f, '<', "/proc/$pid/stat") or next;
		my @field = split ' ', (readline($f) // '') =~ s/^.*\) //r;
		$ticks += $_ // 0 for @field[11 .. 14];
	}
	return $ticks / sysconf(_SC_CLK_TCK);
}

# memory(PID) — { total, ram, code, rest } in bytes, shared pages counted by share; undef when it may not be read.
sub memory {
	my ($pid) = @_;
	my (%sum, $kind);
	open(my $f, '<', "/proc/$pid/smaps") or return undef;
	while (<$f>) {
		if (/^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)/) {
			$kind = $1 =~ /memfd:maru-ram/ ? 'ram' : $1 =~ /memfd:maru-code/ ? 'code' : 'rest';
		} elsif (/^Pss:\s+(\d+) kB/) {
			$sum{$kind} += $1 * 1024;
			$sum{total} += $1 * 1024;
		}
	}
	return $sum{total} ? { map { $_ => $sum{$_} // 0 } qw(total ram code rest) } : undef;
}

1;
