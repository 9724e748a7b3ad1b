# SPDX-License-Identifier: Apache-2.0
#
# What the figures of a run say: tables, geometric means, targets, and the difference of two runs.
#
# A result is what bench/run writes as JSON:
#
#   { format => 1, created, reps, commit, host => {…}, engines => { KIND => version }, without => { KIND => why },
#     programs => [ { name, group, interface, runs => { COLUMN => { seconds => […], cpu => […], sums => […],
#     failures => […] } } } ], extra => { NAME => { value, unit, … } } }
#
# A column is an engine: native, maru-bt (the translator), maru-kvm, tcg, tcg-new; for programs of the group paravirt also
# an engine that offers its guest all interfaces but one (maru-bt-without) or none (maru-bt-off).
#
# Speeds are ratios of medians; more is better. What maru is compared with is the translator: its share of the native
# speed, and "vs TCG", against the faster of the TCGs, program by program. KVM is beside it, where it is really there.

package Bench::Report;

use strict;
use warnings;
use JSON::PP;

# name of the target, wanted, at least (1) or at most (-1), and how to show it. The values come from figures().
my @targets = (
	['geometric mean over all programs', 'all', 3, 1, '%.2fx TCG'],
	['slowest program', 'slowest', 1.2, 1, '%.2fx TCG'],
	['floating point and SIMD programs', 'fp', 10, 1, '%.2fx TCG'],
	['kernel boot to login, 1 vCPU', 'boot', 0.6, -1, "%.2fx TCG's time"],
	['2-vCPU parallel build over 1 vCPU', 'parallel', 1.7, 1, '%.2fx'],
	['first guest instruction after maru run', 'first', 50, -1, '%.1f ms'],
	['memory beyond guest RAM and code cache', 'memory', 30, -1, '%.1f MB'],
	['idle Debian', 'idle', 2, -1, '%.2f %% of a core'],
	['virtio-blk sequential read, against the host', 'blk-read', 0.7, 1, '%.2fx'],
	['virtio-blk sequential write, against the host', 'blk-write', 0.7, 1, '%.2fx'],
	['NAT to the guest', 'nat-down', 1, 1, "%.2fx TCG's"],
	['NAT from the guest', 'nat-up', 1, 1, "%.2fx TCG's"],
);

# load(PATH) — a result from a file; dies when it is none. There was a time with one engine, called maru.
sub load {
	my ($path) = @_;
	open(my $f, '<', $path) or die "bench: $path: $!\n";
	local $/;
	my $r = eval { JSON::PP->new->utf8->decode(scalar <$f>) };
	ref $r eq 'HASH' && ($r->{format} // 0) == 1 or die "bench: $path is no result of bench/run\n";
	for my $of ($r->{engines} // {}, map { $_->{runs} } @{ $r->{programs} }) {
		$of->{'maru-bt'} = delete $of->{maru} if $of->{maru};
	}
	$r->{extra}{'idle-maru-bt'} = delete $r->{extra}{'idle-maru'} if $r->{extra}{'idle-maru'};
	return $r;
}

sub median {
	my @v = sort { $a <=> $b } grep { defined } @_;
	return undef unless @v;
	return ($v[$#v / 2] + $v[@v / 2]) / 2;
}

sub geomean {
	my @v = grep { defined && $_ > 0 } @_;
	return undef unless @v;
	my $sum = 0;
	$sum += log $_ for @v;
	return exp($sum / @v);
}

sub ratio {
	my ($over, $under) = @_;
	return defined $over && defined $under && $under > 0 ? $over / $under : undef;
}

# row(PROGRAM, BY) — medians and ratios of one program; BY is seconds (wall) or cpu.
sub row {
	my ($program, $by) = @_;
	my %row = (name => $program->{name}, group => $program->{group}, interface => $program->{interface});
	for my $kind (keys %{ $program->{runs} }) {
		my $run = $program->{runs}{$kind};
		$row{$kind} = median(@{ $run->{$by} });
	}
	my ($best) = sort { $a <=> $b } grep { defined } @row{qw(tcg tcg-new)};
	$row{of_native} = ratio($row{native}, $row{'maru-bt'});
	$row{kvm_of_native} = ratio($row{native}, $row{'maru-kvm'});
	$row{tcg_of_native} = ratio($row{native}, $best);
	$row{over_tcg} = ratio($best, $row{'maru-bt'});
	return \%row;
}

sub rows {
	my ($result, $by) = @_;
	return map { row($_, $by) } @{ $result->{programs} };
}

# All the figures that targets ask for, by name; what was not measured is missing.
sub figures {
	my ($result, $by) = @_;
	$by //= 'seconds';
	my @rows = rows($result, $by);
	my %row = map { $_->{name} => $_ } @rows;
	my %figure = (
		all => geomean(map { $_->{over_tcg} } @rows),
		fp => geomean(map { $_->{over_tcg} } grep { $_->{group} eq 'fp' } @rows),
		# Two vCPUs do not make less work, they do it in less time.
		parallel => $by eq 'seconds' ? ratio($row{'make-j1'}{'maru-bt'}, $row{'make-j2'}{'maru-bt'}) : undef,
	);
	my ($slowest) = sort { $a->{over_tcg} <=> $b->{over_tcg} } grep { defined $_->{over_tcg} } @rows;
	@figure{qw(slowest slowest-name)} = @$slowest{qw(over_tcg name)} if $slowest;
	my $boot = $row{'boot-1cpu'}{over_tcg};
	$figure{boot} = 1 / $boot if $boot;
	$figure{$_} = $row{$_}{of_native} for qw(blk-read blk-write);
	$figure{$_} = $row{$_}{over_tcg} for qw(nat-down nat-up);
	my %extra = (first => 'first-instruction', memory => 'memory-beyond', idle => 'idle-maru-bt');
	$figure{$_} = ($result->{extra}{ $extra{$_} } // {})->{value} for keys %extra;
	return \%figure;
}

# judge(FIGURES) — [ name, wanted, measured, verdict ] for each target.
sub judge {
	my ($figure) = @_;
	return map {
		my ($name, $key, $wanted, $sign, $format) = @$_;
		my $value = $figure->{$key};
		[ $name, ($sign > 0 ? '>= ' : '<= ') . sprintf($format =~ s/\.\d+f/g/r, $wanted),
			defined $value ? sprintf($format, $value) . ($figure->{"$key-name"} ? " ($figure->{\"$key-name\"})" : '') : '-',
			!defined $value ? 'not measured' : ($value - $wanted) * $sign >= 0 ? 'met' : 'MISSED' ]
	} @targets;
}

# Everything that makes a result wrong, not slow: one line each.
sub failures {
	my ($result) = @_;
	my @failures;
	for my $p (@{ $result->{programs} }) {
		my %said;
		for my $kind (sort keys %{ $p->{runs} }) {
			my $run = $p->{runs}{$kind};
			push @failures, map { "$p->{name} in $kind: $_" } @{ $run->{failures} // [] };
			push @{ $said{$_} }, $kind for keys %{{ map { $_ => 1 } @{ $run->{sums} // [] } }};
		}
		push @failures, "$p->{name}: the output differs: "
			. join(', ', map { substr($_, 0, 12) . " (@{ $said{$_} })" } sort keys %said) if keys %said > 1;
	}
	return @failures;
}

sub number {
	my ($format, $value) = @_;
	return defined $value ? sprintf($format, $value) : '-';
}

# How much longer programs that only compute took than the processor was theirs: 1 on a host that has nothing else to do.
sub waiting {
	my ($result) = @_;
	return geomean(map {
		my $runs = $_->{runs};
		map { ratio(median(@{ $runs->{$_}{seconds} }), median(@{ $runs->{$_}{cpu} })) } keys %$runs
	} grep { $_->{group} =~ /^(int|fp)$/ } @{ $result->{programs} });
}

# Where KVM was not measured there is no column for it.
sub show_programs {
	my ($by, @rows) = @_;
	my @kinds = grep { my $k = $_; grep { defined $_->{$k} } @rows } qw(native maru-bt maru-kvm tcg tcg-new);
	my @ratios = ([ 'of native', 'of_native', '%.3f' ], [ 'KVM: same', 'kvm_of_native', '%.3f' ],
		[ 'TCG: same', 'tcg_of_native', '%.3f' ], [ 'vs TCG', 'over_tcg', '%.2fx' ]);
	splice @ratios, 1, 1 unless grep { $_ eq 'maru-kvm' } @kinds;
	my $text = sprintf "%-11s %-4s%s %s\n", 'program', '', join('', map { sprintf '%10s', $_ } @kinds),
		join('', map { sprintf '%10s', $_->[0] } @ratios);
	for my $r (@rows) {
		$text .= sprintf "%-11s %-4s%s %s\n", $r->{name}, $r->{group},
			join('', map { sprintf '%10s', number('%.3f', $r->{$_}) } @kinds),
			join('', map { sprintf '%10s', number($_->[2], $r->{ $_->[1] }) } @ratios);
	}
	$text .= "\n" . ($by eq 'cpu' ? 'processor' : 'median')
		. " seconds; \"of native\" is speed: the translator's, then that of others\n\n"
		. sprintf("%-24s %3s%s\n", 'geometric means', '', join('', map { sprintf '%10s', $_->[0] } @ratios));
	my %group = (all => 1, map { $_->{group} => 1 } @rows);
	for my $g (grep { $group{$_} } qw(all int fp sys io smp boot)) {
		my @of = grep { $g eq 'all' || $_->{group} eq $g } @rows;
		$text .= sprintf "%-24s %3d%s\n", $g, scalar @of,
			join('', map { my ($name, $key, $format) = @$_; sprintf '%10s', number($format, geomean(map { $_->{$key} } @of)) } @ratios);
	}
	return $text;
}

# What paravirtual interfaces are worth: each by a program that uses it, and all of them. More than 1 is a gain.
sub show_paravirt {
	my ($by, @rows) = @_;
	my $text = '';
	for my $kind (qw(maru-bt maru-kvm)) {
		my @of = grep { defined $_->{$kind} } @rows or next;
		$text .= sprintf "%s%-11s %-10s%10s%10s%10s %10s%10s\n", $text eq '' ? '' : "\n", 'paravirt', 'interface',
			$kind, 'without', 'all off', 'its gain', 'of all';
		for my $r (@of) {
			my ($on, $without, $off) = @$r{ $kind, "$kind-without", "$kind-off" };
			$text .= sprintf "%-11s %-10s%10s%10s%10s %10s%10s\n", $r->{name}, $r->{interface},
				map({ number('%.3f', $_) } $on, $without, $off),
				map { number('%.2fx', ratio($_, $on)) } $without, $off;
		}
	}
	$text .= "\n" . ($by eq 'cpu' ? 'processor' : 'median')
		. " seconds, with all paravirtual interfaces, without the one named, without any\n" if $text ne '';
	return $text;
}

# show(RESULT, BY) — the whole report, as text.
sub show {
	my ($result, $by) = @_;
	$by //= 'seconds';
	my @all = rows($result, $by);
	my @rows = grep { !$_->{interface} } @all;
	my $text = @rows ? show_programs($by, @rows) : '';
	my @slow = sort { $a->{over_tcg} <=> $b->{over_tcg} } grep { defined $_->{over_tcg} } @rows;
	$text .= 'slowest against TCG: ' . join(', ', map { sprintf '%s %.2fx', $_->{name}, $_->{over_tcg} }
		@slow[0 .. ($#slow < 4 ? $#slow : 4)]) . "\n" if @slow;
	my $paravirt = show_paravirt($by, grep { $_->{interface} } @all);
	$text .= ($text eq '' ? '' : "\n") . $paravirt if $paravirt ne '';
	my $without = $result->{without} // {};
	$text .= "\n" if %$without;
	$text .= "without $_: $without->{$_}\n" for sort keys %$without;
	my $extra = $result->{extra} // {};
	$text .= "\n" if %$extra;
	$text .= sprintf "%-20s %s %s%s\n", $_, number('%.4g', $extra->{$_}{value}), $extra->{$_}{unit},
		defined $extra->{$_}{note} ? " ($extra->{$_}{note})" : '' for sort keys %$extra;
	$text .= "\n" . join '', map { sprintf "%-46s %-18s %-18s %s\n", @$_ } ['target', '', 'measured', ''],
		judge(figures($result, $by));
	my $waiting = waiting($result) // 1;
	$text .= sprintf "\nThe host was busy: what computes took %.2f times its processor time. bench/report --by cpu is steadier.\n",
		$waiting if $waiting > 1.1 && $by ne 'cpu';
	my @failures = failures($result);
	$text .= "\nFAILED:\n" . join '', map { "  $_\n" } @failures if @failures;
	return $text;
}

# moved(OLD, NEW) — whether two lists of measurements differ by more than their noise: nothing of one lies within
# the other, and the medians are 3 % apart; with less than three measurements, 10 % apart.
sub moved {
	my ($old, $new) = @_;
	my @o = sort { $a <=> $b } grep { defined } @$old;
	my @n = sort { $a <=> $b } grep { defined } @$new;
	return 0 unless @o && @n;
	my $change = abs(log(median(@n) / median(@o)));
	return $change > log 1.1 if @o < 3 || @n < 3;
	return $change > log 1.03 && ($o[-1] < $n[0] || $n[-1] < $o[0]);
}

# compare(OLD, NEW, BY) — what changed for the translator. When both runs have native measurements, speeds are taken relative
# to these, so that a host which was busier for one of them matters less.
sub compare {
	my ($old, $new, $by) = @_;
	$by //= 'seconds';
	my %before = map { $_->{name} => $_ } @{ $old->{programs} };
	my (@lines, @changes, $quiet);
	for my $p (@{ $new->{programs} }) {
		my $b = $before{ $p->{name} };
		my ($ro, $rn) = (row($b // { name => '', group => '', runs => {} }, $by), row($p, $by));
		next unless defined $ro->{'maru-bt'} && defined $rn->{'maru-bt'};
		my ($measure_o, $measure_n) = ($b->{runs}{'maru-bt'}{$by}, $p->{runs}{'maru-bt'}{$by});
		my $factor = $ro->{'maru-bt'} / $rn->{'maru-bt'};
		if ($ro->{native} && $rn->{native}) {
			$measure_o = [ map { $_ / $ro->{native} } @$measure_o ];
			$measure_n = [ map { $_ / $rn->{native} } @$measure_n ];
			$factor *= $rn->{native} / $ro->{native};
		}
		push @changes, $factor;
		my $moved = moved($measure_o, $measure_n);
		$quiet += !$moved;
		push @lines, [ $factor, sprintf "%-11s %9s %9s %9s %9s  %5.2fx  %s\n", $p->{name},
			number('%.3f', $ro->{of_native}), number('%.3f', $rn->{of_native}), number('%.2fx', $ro->{over_tcg}),
			number('%.2fx', $rn->{over_tcg}), $factor, $factor > 1 ? 'faster' : 'SLOWER' ] if $moved;
	}
	my $text = sprintf "%-11s %9s %9s %9s %9s  %s\n", 'program', 'of native', 'now', 'vs TCG', 'now', 'speed';
	$text .= $_->[1] for sort { $b->[0] <=> $a->[0] } @lines;
	$text .= sprintf "%d of %d programs have not moved by more than the noise; geometric mean of all: %s\n",
		$quiet // 0, scalar @changes, number('%.3fx', geomean(@changes));
	my (@o, @n) = ();
	@o = judge(figures($old, $by));
	@n = judge(figures($new, $by));
	$text .= "\n" . join '', map { sprintf "%-46s %16s -> %-16s %s\n", $o[$_][0], $o[$_][2], $n[$_][2],
		$o[$_][3] eq $n[$_][3] ? $n[$_][3] : "$o[$_][3] -> $n[$_][3]" } 0 .. $#o;
	my %old = map { $_ => 1 } failures($old);
	$text .= join '', map { "new failure: $_\n" } grep { !$old{$_} } failures($new);
	return $text;
}

1;
