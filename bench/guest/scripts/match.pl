# SPDX-License-Identifier: Apache-2.0
#
# Regular expressions over lines: classes, alternatives, captures, substitution, backtracking.

use strict;
use warnings;

my ($lines) = @ARGV;
my (%seen, $mails, $dates, $pairs, $changed) = ();
($mails, $dates, $pairs, $changed) = (0, 0, 0, 0);
open(my $f, '<', '/bench/data/text') or die "text: $!\n";
while (my $line = <$f>) {
	last if $. > $lines;
	$mails++ if $line =~ /<([a-z]+)@([a-z]+)\.example>\s+id=([0-9a-f]+)/ && ++$seen{$2};
	$dates++ if $line =~ /^(\d{4})-(0[1-6])-(\d\d) (\d\d):([0-5]\d):\d\d/;
	$pairs += () = $line =~ /\b(\w)\w*\1\b/g;
	$changed += $line =~ s/(\d+)\.(\d+)/$2.$1/g;
	$changed += $line =~ s/\b(a|in|do|[m-p]o)\w*/<$1>/gi;
	$pairs++ if $line =~ /(?:[aeiou][^aeiou ]){3,}(?=\w* \w+ing|er\b)/;
}
print "$mails $dates $pairs $changed\n";
print join(' ', map { "$_=$seen{$_}" } sort keys %seen), "\n";
