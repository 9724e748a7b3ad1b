# SPDX-License-Identifier: Apache-2.0
#
# The other side of guest/inout.c: sends or takes megabytes over TCP on 127.0.0.1, which a guest reaches as 10.0.2.2.
# A connection says "D200" (200 MiB to the guest) or "U200" (from it, answered by k when all came as it was sent).

package Bench::Server;

use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();

# start() — a process of its own; { port, pid }.
sub start {
	my ($class) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 16)
		or die "bench: the server cannot listen: $!\n";
	my $parent = $$;
	my $self = bless { port => $listener->sockport }, $class;
	$self->{pid} = fork // die "bench: cannot start a process: $!\n";
	return $self if $self->{pid};
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
	$SIG{PIPE} = 'IGNORE';
	my $part = pack('Q<512', map { $_ * 2654435761 } 1 .. 512) x 256;
	$listener->timeout(5);
	while (getppid == $parent) {
		my $peer = $listener->accept or next;
		serve($peer, $part);
		close $peer;
	}
	POSIX::_exit(0);
}

sub serve {
	my ($peer, $part) = @_;
	my $hello = '';
	sysread($peer, $hello, 1, length $hello) or return until $hello =~ /\n/;
	my ($verb, $mib) = $hello =~ /^([DU])(\d{1,5})\n/ or return;
	if ($verb eq 'U') {
		syswrite($peer, take($peer, $mib) ? 'k' : 'x');
		return;
	}
	for (1 .. $mib) {
		my $done = 0;
		$done += syswrite($peer, $part, length($part) - $done, $done) || return while $done < length $part;
	}
}

# The guest's pages start with their number times a constant.
sub take {
	my ($peer, $mib) = @_;
	my ($buffer, $number) = ('', 0);
	while ($number < $mib * 256) {
		sysread($peer, $buffer, 1 << 20, length $buffer) or return 0;
		my $pages = int(length($buffer) / 4096);
		use integer;
		for my $word (unpack "(q<x4088)$pages", $buffer) {
			return 0 if $word != $number++ * -7046029254386353131;
		}
		substr($buffer, 0, $pages * 4096) = '';
	}
	return 1;
}

sub stop {
	my ($self) = @_;
	kill('KILL', $self->{pid}) && waitpid($self->{pid}, 0) if $self->{pid};
	delete $self->{pid};
}

1;
