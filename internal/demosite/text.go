package demosite

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// The site is the log book of six lighthouses that do not exist.
var (
	stations = []string{"Aldermoor", "Brannish", "Corrack", "Dunvarra", "Ellisker", "Fallowness"}
	keepers  = []string{"Ines", "Tobias", "Marit", "Osric", "Vera", "Jonah"}
	weathers = []string{"fog until noon", "a clear night", "squalls from the west", "a flat calm", "sleet", "a hard frost"}
	sights   = []string{"two trawlers running for harbour", "a tanker well out", "porpoises off the point", "a yacht with her lights out", "nothing but gulls", "the mail boat, late again"}
	chores   = []string{"wound the clockwork", "cleaned the lens", "painted the south rail", "mended the landing stage", "counted the lamp oil", "wrote to the harbour office"}
)

// entries is the number of log entries on a page: about 2 KiB of text.
const entries = 12

func pageHTML(host, n int) string {
	random := rand.New(rand.NewPCG(uint64(host), uint64(n)))
	pick := func(words []string) string { return words[random.IntN(len(words))] }
	var b strings.Builder
	open(&b, fmt.Sprintf("%s light, log book, leaf %d", stations[host], n))
	for i := range entries {
		fmt.Fprintf(&b, "<p>Watch %d. %s reports %s, wind %d knots. Seen: %s. %s %s before relief.</p>\n",
			i+1, pick(keepers), pick(weathers), 2+random.IntN(40), pick(sights), pick(keepers), pick(chores))
	}
	fmt.Fprintf(&b, "<p><a href=\"/\">All leaves</a> <a href=\"%s\">Another leaf</a></p>\n", pagePath(1+n%plainPages))
	return b.String() + closing
}

func indexHTML(host int) string {
	var b strings.Builder
	open(&b, stations[host]+" light, log book")
	b.WriteString("<ul>\n")
	for n := 1; n <= plainPages; n++ {
		fmt.Fprintf(&b, "<li><a href=\"%s\">Leaf %d</a></li>\n", pagePath(n), n)
	}
	b.WriteString("</ul>\n")
	return b.String() + closing
}

const closing = "</body>\n</html>\n"

func open(b *strings.Builder, title string) {
	fmt.Fprintf(b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>%[1]s</title></head>\n<body>\n<h1>%[1]s</h1>\n", title)
}
