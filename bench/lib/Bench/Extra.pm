# SPDX-License-Identifier: Apache-2.0
#
# What is measured besides programs: the time to the first guest instruction, and what an idle Debian costs.

package Bench::Extra;

use strict;
use warnings;
use Fcntl;
use POSIX qw(mkfifo WNOHANG);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);
use Bench::Process;
use Bench::Report;

# first_instruction(MARU, TOP, SCRATCH, TIMES) — milliseconds from the start of `maru run` until the guest's first
# instruction has written a byte, the median of some times.
sub first_instruction {
	my ($maru, $top, $scratch, $times) = @_;
	my ($elf, $fifo) = ("$scratch/first.elf", "$scratch/first");
	system('gcc', '-m32', '-nostdlib', '-static', '-no-pie', '-Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments',
		'-T', "$top/tests/bare/link.ld", '-o', $elf, "$top/bench/first.S") == 0 or return undef;
	mkfifo($fifo, 0600) or return undef;
	my @ms;
	for (1 .. $times) {
		# Both ways, so that its opening waits for nobody and its end is not seen before the byte.
		sysopen(my $end, $fifo, O_RDWR) or return undef;
		my $start = clock_gettime(CLOCK_MONOTONIC);
		my $pid = fork // return undef;
		if (!$pid) {
			open(STDIN, '<', '/dev/null');
			open(STDERR, '>', "$scratch/first.errors");
			exec($maru, 'run', '--engine', 'bt', '--kernel', $elf, '--memory', '1G', '--net', 'none', '--serial', 'none',
				'--debug-exit', '--debugcon', $fifo) or POSIX::_exit(127);
		}
		my $set = '';
		vec($set, fileno $end, 1) = 1;
		my $came = select($set, undef, undef, 20);
		my $now = clock_gettime(CLOCK_MONOTONIC);
		kill('KILL', $pid) unless $came;
		waitpid($pid, 0);
		return undef unless $came;
		push @ms, ($now - $start) * 1000;
	}
	return Bench::Report::median(@ms);
}

# idle(ENGINE, SETTLE, SECONDS) — percent of a core that a booted guest takes which nobody asks for anything.
sub idle {
	my ($engine, $settle, $seconds) = @_;
	$engine->wait_for(qr/(?!)/, $settle);
	my %family = Bench::Process::family($engine->{pid});
	my ($before, $start) = (Bench::Process::cpu_seconds(keys %family), clock_gettime(CLOCK_MONOTONIC));
	$engine->wait_for(qr/(?!)/, $seconds);
	my $used = Bench::Process::cpu_seconds(keys %family) - $before;
	return 100 * $used / (clock_gettime(CLOCK_MONOTONIC) - $start);
}

# memory(ENGINE) — of maru-vm, in MB; undef when this user may not look.
sub memory {
	my ($engine) = @_;
	my %family = Bench::Process::family($engine->{pid});
	my ($vm) = grep { $family{$_} eq 'maru-vm' } keys %family;
	my $m = $vm && Bench::Process::memory($vm) or return undef;
	return { map { $_ => $m->{$_} / 1e6 } keys %$m };
}

1;
