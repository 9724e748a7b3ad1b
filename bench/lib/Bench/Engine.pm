# SPDX-License-Identifier: Apache-2.0
#
# What runs programs: the host itself, maru, or QEMU, each with the same tree, kernel and agent (guest/agent.c has the
# protocol). An engine is started once and told over its standard input, which is the guest's serial port, what to run.

package Bench::Engine;

use strict;
use warnings;
use JSON::PP;
use POSIX qw(:sys_wait_h setpgid);
use Bench::Process;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

# start(KIND, { cpus, name, home, scratch, maru, append, paravirt }) — KIND is native, maru-bt, maru-kvm, tcg or tcg-new; home
# is the folder that bench/disk made, scratch one for logs and the second disk; append takes the place of what makes the agent
# start; paravirt is off or the name of an interface that the guest is to do without (maru only).
sub start {
	my ($class, $kind, $o) = @_;
	my $self = bless { kind => $kind, cpus => $o->{cpus} // 1, pending => '', home => $o->{home} }, $class;
	my $id = join '-', $o->{name} // 'run', $kind, $self->{cpus}, $o->{paravirt} // ();
	# Beside the disk below it: maru does not follow an image to elsewhere.
	$self->{overlay} = "$self->{home}/.run-$$-$id.qcow2";
	$self->{disk} = $kind eq 'native' ? "/tmp/disk.raw" : '/dev/vdb';
	$self->{data} = "$o->{scratch}/$id.raw";
	$self->{log} = "$o->{scratch}/$id.log";
	truncate_to($self->{data}, 256 << 20);
	# None outlives us, not even when we are killed.
	my @command = (qw(setpriv --pdeathsig KILL), $kind eq 'native' ? native($self) : machine($self, $o));
	pipe(my $child_in, $self->{in}) && pipe($self->{out}, my $child_out) or die "bench: cannot make pipes: $!\n";
	$self->{started} = clock_gettime(CLOCK_MONOTONIC);
	$self->{pid} = fork // die "bench: cannot start a process: $!\n";
	if (!$self->{pid}) {
		setpgid(0, 0);
		open(STDIN, '<&', $child_in);
		open(STDOUT, '>&', $child_out);
		open(STDERR, '>', "$self->{log}.errors");
		exec { $command[0] } @command or print STDERR "cannot run $command[0]: $!\n";
		POSIX::_exit(127);
	}
	setpgid($self->{pid}, $self->{pid});
	return $self;
}

sub truncate_to {
	my ($path, $size) = @_;
	open(my $f, '>>', $path) or die "bench: $path: $!\n";
	truncate($f, $size) or die "bench: $path: $!\n";
}

# The tree, read-only but for /tmp, in namespaces of its own; without root in a user namespace.
sub native {
	my ($self) = @_;
	my $set_up = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; mount --rbind /dev "$1/dev"; '
		. 'mount -t tmpfs tmpfs "$1/tmp"; mount -t proc proc "$1/proc"; : >"$1/tmp/disk.raw"; '
		. 'mount --bind "$2" "$1/tmp/disk.raw"; shift 2; exec chroot "$@"';
	my $tree = "$self->{home}/tree";
	return ('unshare', ($> ? '-r' : ()), '-mpf', '--kill-child', 'sh', '-ec', $set_up, 'sh', $tree, $self->{data},
		$tree, 'env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', '/bench/agent', '--native',
		$self->{cpus} == 1 ? '--pin' : ());
}

sub machine {
	my ($self, $o) = @_;
	my $home = $self->{home};
	my $append = 'root=/dev/vda rw console=ttyS0 quiet no_timer_check ' . ($o->{append} // 'loglevel=1 init=/bench/agent');
	my $memory = '1G';
	unlink $self->{overlay};
	my $said = qx("$o->{maru}" image create "$self->{overlay}" --backing "$home/disk.raw,format=raw" 2>&1);
	die "bench: no overlay for the disk: $said" if $? != 0;
	my $without = $o->{paravirt} // '';
	my ($engine) = $self->{kind} =~ /^maru-(.*)/;
	return ('env', ($without =~ /^(|off)$/ ? () : "MARU_BT_DEBUG=no-pv-$without"), $o->{maru}, 'run', '--engine', $engine,
		'--paravirt', $without eq 'off' ? 'off' : 'on', '--kernel', "$home/vmlinuz", '--initrd', "$home/initrd.img", '--append', $append,
		'--disk', $self->{overlay}, '--disk', "$self->{data},format=raw", '--memory', $memory, '--cpus', $self->{cpus},
		'--net', 'user', '--serial', 'stdio') if $engine;
	return (qemu($self->{kind}, $home), '-accel', 'tcg,thread=multi', qw(-cpu max -M q35 -nodefaults -no-user-config),
		qw(-display none -no-reboot -serial stdio), '-m', $memory, '-smp', $self->{cpus},
		'-kernel', "$home/vmlinuz", '-initrd', "$home/initrd.img", '-append', $append,
		'-drive', "file=$self->{overlay},format=qcow2,if=virtio",
		'-drive', "file=$self->{data},format=raw,if=virtio", '-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n');
}

# The program itself; the one of the backports runs from the folder where it was unpacked.
sub qemu {
	my ($kind, $home) = @_;
	return 'qemu-system-x86_64' if $kind eq 'tcg';
	my $root = "$home/../qemu-new";
	my $lib = "$root/usr/lib/x86_64-linux-gnu";
	$ENV{QEMU_MODULE_DIR} = "$lib/qemu";
	return ("$root/lib64/ld-linux-x86-64.so.2", '--library-path', "$lib:$root/lib/x86_64-linux-gnu",
		"$root/usr/bin/qemu-system-x86_64", '-L', "$root/usr/share/qemu", '-L', "$root/usr/share/seabios");
}

# no_kvm(MARU) — why what it says of this host's KVM (maru doctor) leaves nothing to compare with; undef when KVM is there
# and really fast. Where /dev/kvm emulates, its times say nothing about KVM.
sub no_kvm {
	my ($maru) = @_;
	my $said = eval { JSON::PP->new->utf8->decode(scalar qx("$maru" doctor -o json 2>/dev/null)) };
	my $engine = ref $said eq 'HASH' ? $said->{engine} : undef;
	return "$maru doctor says nothing about it" unless ref $engine eq 'HASH';
	return ($engine->{chosen} // '') eq 'kvm' ? undef : $engine->{reason} // 'maru doctor does not choose it';
}

# version(KIND, HOME, MARU) — what it says about itself; undef when it does not run.
sub version {
	my ($kind, $home, $maru) = @_;
	return 'this host' if $kind eq 'native';
	return "$maru, the translator" if $kind eq 'maru-bt';
	return "$maru with KVM" if $kind eq 'maru-kvm';
	open(my $p, '-|', qemu($kind, $home), '--version') or return undef;
	my ($version) = (readline($p) // '') =~ /^(QEMU.*)/;
	return $version;
}

# Waits for something on the console; the time when it came, or undef when it ended or the time is over. What came
# before it is in $self->{before}, what it matched in $self->{found}.
sub wait_for {
	my ($self, $regex, $seconds) = @_;
	my $until = clock_gettime(CLOCK_MONOTONIC) + $seconds;
	for (;;) {
		my $now = clock_gettime(CLOCK_MONOTONIC);
		if ($self->{pending} =~ $regex) {
			$self->{before} = substr($self->{pending}, 0, $-[0]);
			$self->{found} = [map { substr($self->{pending}, $-[$_], $+[$_] - $-[$_]) } 1 .. $#-];
			substr($self->{pending}, 0, $+[0]) = '';
			return $now;
		}
		my $set = '';
		vec($set, fileno $self->{out}, 1) = 1;
		return undef if $now >= $until;
		select($set, undef, undef, $until - $now) or next;
		my $n = sysread($self->{out}, my $part, 65536);
		return undef unless $n;
		$self->{pending} .= $part;
		open(my $log, '>>', $self->{log}) or next;
		print $log $part;
	}
}

sub ready {
	my ($self, $seconds) = @_;
	return defined $self->wait_for(qr/^\@\@ready\r?$/m, $seconds);
}

# Runs one program. Returns { seconds, guest_seconds, status, sum, bytes, errors }, or { error } when the engine is
# no longer to be used.
sub run {
	my ($self, $command, $limit) = @_;
	local $SIG{PIPE} = 'IGNORE';
	# Whose processor time it is that it takes; natively the agent knows it better.
	$self->{family} //= [ keys %{{ Bench::Process::family($self->{pid}) }} ];
	my @family = $self->{kind} eq 'native' ? () : @{ $self->{family} };
	my $used = Bench::Process::cpu_seconds(@family);
	syswrite($self->{in}, "run $limit $command\n") or return { error => 'it has ended' };
	my $start = $self->wait_for(qr/^\@\@start\r?\n/m, 30) // return { error => 'it does not answer' };
	my $end = $self->wait_for(qr/^\@\@end (\d+) (\d+) (\d+)\r?\n/m, $limit + 60)
		// return { error => 'no end within the time' };
	$used = @family ? Bench::Process::cpu_seconds(@family) - $used : $self->{found}[2] / 1e9;
	my ($status, $guest_ns) = @{ $self->{found} };
	my %result = (cpu => $used, seconds => $end - $start, status => $status, guest_seconds => $guest_ns / 1e9);
	$self->wait_for(qr/^\@\@sum (\S+) (\d+)\r?\n/m, 120) // return { error => 'no check sum' };
	@result{qw(sum bytes)} = @{ $self->{found} };
	$result{errors} = join "\n", $self->{before} =~ /^\@\@err (.*?)\r?$/mg;
	$self->ready(30) or return { error => 'it does not come back' };
	return \%result;
}

# Of all its processes, since it started.
sub cpu_seconds {
	my ($self) = @_;
	return Bench::Process::cpu_seconds(keys %{{ Bench::Process::family($self->{pid}) }});
}

# The end of what the console and standard error said, for messages.
sub last_words {
	my ($self) = @_;
	my $text = '';
	for my $path ($self->{log}, "$self->{log}.errors") {
		open(my $f, '<', $path) or next;
		my @lines = readline $f;
		@lines = @lines[-12 .. -1] if @lines > 12;
		$text .= join '', map { s/[\r\n]*$//r =~ s/[^ -~]/?/gr =~ s/^/    | /r . "\n" } @lines;
	}
	return $text;
}

# Ends it: asks the agent, or not.
sub stop {
	my ($self, $now) = @_;
	return unless $self->{pid};
	local $SIG{PIPE} = 'IGNORE';
	syswrite($self->{in}, "off\n") unless $now;
	for (1 .. 200) {
		last if waitpid($self->{pid}, WNOHANG) == $self->{pid};
		kill('KILL', -$self->{pid}) if $now || $_ == 160;
		select(undef, undef, undef, 0.05);
	}
	close $self->{in};
	delete $self->{pid};
	unlink $self->{overlay}, $self->{data};
}

1;
