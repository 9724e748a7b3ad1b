#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
#
# What bench/ makes of measurements: medians, means, targets, failures, and what has changed between two results.

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
my $top;
BEGIN {
	$top = dirname(dirname(dirname(abs_path($0))));
	if (!eval { require JSON::PP; require Time::HiRes }) {
		print "1..0 # skip the Debian package perl is not installed\n";
		exit 0;
	}
}
use lib "$top/bench/lib";
use Bench::Engine;
use Bench::Report;

my ($tests, $failed) = (0, 0);
sub ok {
	my ($good, $what) = @_;
	$tests++;
	$failed++ unless $good;
	print $good ? '' : 'not ', "ok $tests - $what\n";
}

sub is {
	my ($got, $wanted, $what) = @_;
	my $same = defined $got ? defined $wanted && $got eq $wanted : !defined $wanted;
	ok($same, $what);
	print '# got ', $got // 'undef', ', wanted ', $wanted // 'undef', "\n" unless $same;
}

# program(NAME, GROUP, KIND => [SECONDS…], …)
sub program {
	my ($name, $group, %seconds) = @_;
	return { name => $name, group => $group, runs => { map {
		$_ => { seconds => $seconds{$_}, cpu => $seconds{$_}, sums => [ map { 'abc' } @{ $seconds{$_} } ], failures => [] }
	} keys %seconds } };
}

sub result {
	return { format => 1, reps => 3, engines => {}, extra => {}, programs => [@_] };
}

is(Bench::Report::median(3, 1, 2), 2, 'the median of three');
is(Bench::Report::median(4, 1, 2, 3), 2.5, 'the median of four');
is(Bench::Report::median(), undef, 'the median of nothing');
is(sprintf('%.6f', Bench::Report::geomean(2, 8, undef)), '4.000000', 'a geometric mean, of what there is');

my $r = result(
	program('gcc', 'int', native => [1, 1, 9], 'maru-bt' => [4, 4.1, 3.9], tcg => [20, 20, 20], 'tcg-new' => [16, 15, 17]),
	program('nbody', 'fp', native => [0.5, 0.5, 0.5], 'maru-bt' => [1, 1, 1], tcg => [9, 9, 9], 'tcg-new' => [11, 11, 11]),
	program('boot-1cpu', 'boot', 'maru-bt' => [5, 5, 5], tcg => [10, 10, 10]),
	program('make-j1', 'smp', native => [2], 'maru-bt' => [9]),
	program('make-j2', 'smp', native => [1], 'maru-bt' => [5]),
);
my $row = Bench::Report::row($r->{programs}[0], 'seconds');
is($row->{of_native}, 0.25, 'speed is of native');
is($row->{over_tcg}, 4, 'and against the faster TCG');
is(Bench::Report::row($r->{programs}[3], 'seconds')->{over_tcg}, undef, 'nothing is made up where TCG was not measured');

ok(Bench::Report::show($r) !~ /kvm/i, 'no word of KVM where it was not measured');
$r->{without}{'maru-kvm'} = 'this host has no /dev/kvm';
ok(Bench::Report::show($r) =~ m|^without maru-kvm: this host has no /dev/kvm$|m, 'but why not');
my $with_kvm = result(program('gcc', 'int', native => [1], 'maru-bt' => [4], 'maru-kvm' => [1.25], tcg => [20]));
ok(Bench::Report::show($with_kvm) =~ /^program .* maru-bt +maru-kvm +tcg +of native +KVM: same .*\ngcc +int +1\.000 +4\.000 +1\.250 +20\.000 +0\.250 +0\.800 +0\.050 +5\.00x$/m,
	'KVM as a column');
is(Bench::Report::figures($with_kvm)->{all}, 5, 'and the targets are the translator\'s');

my $f = Bench::Report::figures($r);
is(sprintf('%.6f', $f->{all}), sprintf('%.6f', (4 * 9 * 2) ** (1 / 3)), 'the mean over all');
is($f->{slowest}, 2, 'the slowest');
is($f->{fp}, 9, 'the mean of a group');
is($f->{boot}, 0.5, 'the time of a boot against that of TCG');
is($f->{parallel}, 1.8, 'what a second vCPU is worth');
is(Bench::Report::figures($r, 'cpu')->{parallel}, undef, 'which processor time cannot say');
is(Bench::Report::waiting($r), 1, 'a host with nothing else to do');
ok(Bench::Report::show($r) !~ /busy/, 'and no word about it');
$r->{programs}[0]{runs}{'maru-bt'}{cpu} = [1, 1, 1];
ok(Bench::Report::show($r) =~ /^The host was busy/m, 'but about one that was busy');
my %verdict = map { $_->[0] => $_->[3] } Bench::Report::judge($f);
is($verdict{'geometric mean over all programs'}, 'met', 'a target that is met');
is($verdict{'floating point and SIMD programs'}, 'MISSED', 'one that is missed');
is($verdict{'idle Debian'}, 'not measured', 'one that nobody knows of');

is((grep { $_->[0] eq 'slowest program' } Bench::Report::judge($f))[0][2], '2.00x TCG (boot-1cpu)', 'the slowest has a name');
is(scalar(grep { $_->[3] eq 'not measured' } Bench::Report::judge({})), 12, 'every target is named, also when nothing was measured');

is(scalar(Bench::Report::failures($r)), 0, 'no failures');
$r->{programs}[0]{runs}{tcg}{sums}[1] = 'abd';
push @{ $r->{programs}[1]{runs}{'maru-bt'}{failures} }, 'exit status 1: oh';
my @failures = Bench::Report::failures($r);
is(scalar(@failures), 2, 'two failures');
is($failures[0], 'gcc: the output differs: abc (maru-bt native tcg tcg-new), abd (tcg)', 'another output is one');
is($failures[1], 'nbody in maru-bt: exit status 1: oh', 'and so is an exit status');
ok(Bench::Report::show($r) =~ /^FAILED:\n  gcc: the output/m, 'the report says so');

ok(!Bench::Report::moved([1, 1.2, 1.1], [1.15, 1.3, 1.4]), 'overlapping measurements have not moved');
ok(!Bench::Report::moved([1, 1.01], [1.05, 1.08]), 'few measurements must be far apart');
ok(Bench::Report::moved([1, 1.02, 1.01], [0.9, 0.8, 0.85]), 'measurements apart have moved');
my $new = result(
	program('gcc', 'int', native => [2, 2, 2], 'maru-bt' => [4, 4.1, 3.9]),
	program('nbody', 'fp', native => [0.5, 0.5, 0.5], 'maru-bt' => [1.01, 1, 0.99]),
);
my $text = Bench::Report::compare($r, $new);
ok($text =~ /^gcc\s.*2\.00x  faster$/m, 'a busier host is taken into account');
ok($text !~ /^nbody/m && $text =~ /^1 of 2 programs have not moved/m, 'what has not moved is counted, not shown');

# Paravirtual interfaces have a table of their own and count nowhere else.
my $pv = program('pv-ipi', 'paravirt', 'maru-bt' => [2], 'maru-bt-without' => [3], 'maru-bt-off' => [5]);
$pv->{interface} = 'ipi';
push @{ $r->{programs} }, $pv;
$text = Bench::Report::show($r);
ok($text =~ /^pv-ipi +ipi +2\.000 +3\.000 +5\.000 +1\.50x +2\.50x$/m, 'what a paravirtual interface is worth');
ok($text !~ /^all .*4$/m && $text =~ /^all +5 /m, 'outside of the means');
pop @{ $r->{programs} };
$text = Bench::Report::compare($r, $new);

# As people call it.
my $scratch = tempdir(CLEANUP => 1);
for ([ 'old', $r ], [ 'new', $new ]) {
	open(my $file, '>', "$scratch/$_->[0].json") or die;
	print $file JSON::PP->new->encode($_->[1]);
}
is(scalar(qx("$top/bench/report" "$scratch/old.json" "$scratch/new.json")), $text, 'two results from files');
my $older = JSON::PP->new->encode($r) =~ s/"maru-bt"/"maru"/gr;
open(my $file, '>', "$scratch/older.json") or die;
print $file $older;
close $file;
is(scalar(qx("$top/bench/report" "$scratch/older.json")), Bench::Report::show($r), 'a result from when there was one engine');
system("echo '{}' >$scratch/bad.json");
is(scalar(qx("$top/bench/report" "$scratch/bad.json" 2>&1)), "bench: $scratch/bad.json is no result of bench/run\n", 'no result');
ok(scalar(qx("$top/bench/run" --list boot)) =~ /^boot-1cpu .*\nboot-2cpu .*\n\z/, 'the list of programs');
is(scalar(qx("$top/bench/run" nothing 2>&1)), "bench: there is no program or group nothing (--list names them)\n", 'an unknown program');

ok(scalar(qx("$top/bench/run" --list paravirt)) =~ m|^pv-eoi +paravirt +\./paravirt one|m, 'a group of programs');

# A /dev/kvm that emulates is not what KVM is compared by: the doctor decides.
sub doctor {
	my ($says) = @_;
	open(my $script, '>', "$scratch/maru") or die;
	print $script "#!/bin/sh\n[ \"\$*\" = 'doctor -o json' ] && echo '$says'\n";
	close $script;
	chmod 0755, "$scratch/maru";
	return Bench::Engine::no_kvm("$scratch/maru");
}
is(doctor('{"engine":{"chosen":"kvm","reason":"it is fast"},"kvm":{"present":true,"usable":true}}'), undef, 'a fast KVM');
is(doctor('{"engine":{"chosen":"bt","reason":"/dev/kvm takes 700 ns"},"kvm":{"present":true,"usable":false}}'), '/dev/kvm takes 700 ns',
	'a /dev/kvm that emulates');
is(doctor(''), "$scratch/maru doctor says nothing about it", 'no answer');
is(doctor('[]'), "$scratch/maru doctor says nothing about it", 'an answer that is none');

print "1..$tests\n";
exit($failed ? 1 : 0);
