#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
#
# What maru takes, what its --help, its manual and the shells' completions say of it: held against each other. What it takes comes from
# the tables in cli/ that it parses with.

use strict;
use warnings;
use Cwd 'abs_path';
use File::Basename;

chdir dirname($0) . '/../..' or die;
my $maru = abs_path(($ENV{BUILD} // 'build/release') . '/maru');
my ($count, $failed) = (0, 0);

sub ok($$@) {
	my ($good, $what, @why) = @_;
	$count++;
	$failed ||= !$good;
	print $good ? '' : 'not ', "ok $count - $what\n", map { "# $_\n" } $good ? () : @why;
}

sub text_of {
	open my $file, '<', shift or die $!;
	local $/;
	return scalar <$file>;
}

sub sorted { my %seen; return join ' ', sort grep { !$seen{$_}++ } @_ }

# Both are the same set of words.
sub same {
	my ($got, $want, $what) = @_;
	ok(sorted(@$got) eq sorted(@$want), $what, 'got:    ' . sorted(@$got), 'wanted: ' . sorted(@$want));
}

sub help { return scalar `'$maru' @_ --help` }
sub options { return $_[0] =~ /(?<![\w-])--[a-z][a-z-]*/g }

# ---- The tables ----

my ($commands) = text_of('cli/main.c') =~ /commands\[\] = \{(.*?)\};/s;
my @commands = $commands =~ /"([a-z]+)"/g;
my ($options) = text_of('cli/options.c') =~ /struct option options\[\] = \{(.*?)\n\};/s;
my (@run, %flag);
while ($options =~ /\{ "(--[a-z-]+)", (true|false)/g) {
	push @run, $1;
	$flag{$1} = $2 eq 'true';
}
my ($verbs) = text_of('cli/guest.c') =~ /verbs\[\] = \{(.*?)\};/s;
my %verbs = (guest => [ $verbs =~ /"([a-z]+)"/g ], image => [qw(pull list create info rm)]);
ok(@commands > 5 && @run > 20 && @{$verbs{guest}} > 5, 'the tables are found');

# ---- --help ----

my $help = `'$maru' help`;
same([ $help =~ /^  ([a-z]+)  +/gm ], [ @commands ], 'maru help has all commands') if $help =~ s/.*^Commands:$//ms;
my @listed = options(help('run') =~ s/.*?^Machine:$//msr);
same([ @listed, '--help' ], \@run, 'maru run --help has all options');
for my $command (sort keys %verbs) {
	my ($usage) = help($command) =~ /^usage: maru $command (\S+)/;
	same([ split /\|/, $usage ], $verbs{$command}, "maru $command --help has all that it does");
}
ok(`'$maru' $_` eq `'$maru' help`, "maru $_ is the same as maru help") for '--help', 'help help', 'help --help';
my %of = (run => \@run);
for my $command (grep { $_ ne 'help' } @commands) {
	my $text = help($command);
	ok($? == 0 && $text =~ /^usage: maru $command/, "maru $command --help");
	ok($text eq `'$maru' help $command`, "maru help $command is the same");
	ok(!(grep { length > 120 } split /\n/, $text), "maru $command --help: its lines are not too long");
	next if $command eq 'run';
	$of{$command} = [ '--help', options($text) ];
}
for my $verb (@{$verbs{guest}}, @{$verbs{image}}) {
	my $command = (grep { $_ eq $verb } @{$verbs{guest}}) ? 'guest' : 'image';
	ok(`'$maru' $command $verb --help` eq help($command), "maru $command $verb --help");
}
# An option that --help has is one that is taken: what is complained about then is something else.
for my $command (grep { $_ ne 'run' } sort keys %of) {
	for my $option (@{$of{$command}}) {
		my @verb = $command eq 'guest' ? ($option eq '--reboot' ? 'shutdown' : 'exec') :
			$command eq 'image' ? ('create') : ();
		next if $option =~ /^--(force|renew)$/; # are the guest's own
		my $said = `'$maru' $command @verb $option 1 2>&1 </dev/null`;
		ok($said !~ /unknown option|takes -o json and nothing/, "maru $command @verb $option is taken", $said);
	}
}

# ---- The manual ----

my $manual = text_of('man/maru.1') =~ s/\\f[BIR]//gr =~ s/\\-/-/gr;
my %section;
while ($manual =~ /^\.SH MARU (\w+)\n(.*?)(?=^\.SH )/gms) { $section{lc $1} = $2 }
same([ keys %section, 'help' ], \@commands, 'the manual has a section for each command');
my @described = map { /^\.BI? (--[a-z-]+)/ ? $1 : () } split /\n/, $section{run};
same([ @described, '--help' ], \@run, 'the manual describes all options of maru run');
for my $command (sort keys %verbs) {
	my ($synopsis) = $manual =~ /^\.B maru $command (\S+)/m;
	same([ split /\|/, $synopsis ], $verbs{$command}, "the manual's synopsis of maru $command");
	for my $verb (@{$verbs{$command}}) {
		ok($section{$command} =~ /^\.(?:BI?|BR) (?:[^\n]*, " )?"?$verb\b/m, "the manual describes maru $command $verb");
	}
}
for my $command (grep { $_ ne 'run' } sort keys %of) {
	for my $option (grep { $_ !~ /^--help$/ } @{$of{$command}}) {
		ok($section{$command} =~ /\Q$option\E/, "the manual has maru $command $option");
	}
}

# ---- The shells ----

for my $file (glob 'cli/completion/*') {
	ok(text_of('Makefile') =~ /\Q$file\E/, "make install installs $file");
}
# What bash offers for a line whose last word is to be completed; what readline has already is put before it again.
sub bash {
	my $line = shift;
	my @words = split / /, $line, -1;
	$words[0] = $maru;
	open my $pipe, '-|', 'bash', '-c', '. cli/completion/maru.bash; line=$1; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
		COMP_LINE=$line COMP_POINT=${#line}; _maru; printf "%s\n" "${COMPREPLY[@]}"', 'bash', $line, @words or die $!;
	chomp(my @replies = <$pipe>);
	return [ grep { length } @replies ];
}

same([ grep { !/^-/ } @{bash('maru ')} ], \@commands, 'bash completes commands');
same([ bash("maru $_ ")->@* ], [ $verbs{$_}->@*, '--help' ], "bash completes maru $_") for sort keys %verbs;
same(bash('maru help '), [ grep { $_ ne 'help' } @commands ], 'bash completes maru help');
for my $command (sort keys %of) {
	my @got = @{bash('maru ' . ($command eq 'image' ? 'image create' : $command eq 'guest' ? 'guest exec' : $command) . ' --')};
	my @missing = grep { my $o = $_; !grep { $_ eq $o } @got } $of{$command}->@*;
	ok(!@missing, "bash completes all options of maru $command", "missing: @missing");
	same([ grep { /^--/ } @got ], $of{$command}, 'and no others');
}
my $bash = text_of('cli/completion/maru.bash');
my $zsh = text_of('cli/completion/_maru');
for my $option (grep { !$flag{$_} } @run) {
	ok($bash =~ /^\t\t(?:[^\n]*\| )?$option(?: \||\))/m, "bash knows what comes behind $option");
	ok($zsh =~ /^\t(?:[^\n]*\| )?$option(?: \||\))/m, "zsh, too");
}
for my $pair ([ 'maru run --engine k', 'kvm' ], [ 'maru run --engine=b', 'bt' ], [ 'maru run --serial unix', 'unix:' ], [ 'maru status x -o ', 'json' ],
	[ 'maru image create --format q', 'qcow2' ]) {
	same(bash($pair->[0]), [ $pair->[1] ], "bash: $pair->[0]");
}
my %zsh = $zsh =~ /^\t[23],(\*|\w+)\) compadd -- ([^;]+);/gm;
for my $place ([ '*', [ @commands, '--help', '--version' ] ], [ 'help', [ grep { $_ ne 'help' } @commands ] ],
	map { [ $_, [ $verbs{$_}->@*, '--help' ] ] } sort keys %verbs) {
	same([ split / /, $zsh{$place->[0]} ], $place->[1], "zsh completes what follows maru $place->[0]");
}
if (`sh -c "command -v zsh"`) {
	system('zsh', '-n', 'cli/completion/_maru');
	ok($? == 0, 'zsh can read its completion');
} else {
	$count++;
	print "ok $count - zsh can read its completion # SKIP there is no zsh\n";
}

print "1..$count\n";
exit $failed;
