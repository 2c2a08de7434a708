# worker.py for machines without Python. Names are plain (the demo sees to it), so the JSON is easily read.
use strict;
use warnings;
$| = 1;
while (my $line = <STDIN>) {
    my ($id) = $line =~ /"id":"(\d+)"/ or next;
    my ($what, $name) = $line =~ /"payload_text":"(\w+) ([^"\\]+)"/ or next;
    my @how = $what eq 'commit' ? ('-|', 'git', 'log', '-1', '--format=%B', $name) : ('<', $name);
    my $mode = shift @how;
    my $data;
    if (open(my $in, $mode, @how)) {
        local $/;
        $data = <$in> // '';
        close($in) or undef $data;
    }
    if (defined $data) {
        my $lines = $data =~ tr/\n//;
        my $words = () = $data =~ /[A-Za-z]+/g;
        print qq({"id":"$id","payload_text":"$what $lines $words ${\length $data} $name"}\n);
    } else {
        print qq({"id":"$id","error":"cannot count $name"}\n);
    }
}
