package warcunit

import (
	"fmt"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

func TestKnownPayloadsAreBounded(t *testing.T) {
	var k known
	digest := func(i int) warc.Digest { return warc.Digest{5, 5, 5, 0, byte(i), byte(i >> 8)} } // all in one set
	add := func(i int) {
		k.add("job", fmt.Sprint("u", i), map[warc.Digest]original{digest(i): {offset: int64(i)}})
	}
	for i := range ways {
		add(i)
	}
	if _, u, ok := k.find("job", digest(0)); !ok || u.name != "u0" {
		t.Errorf("the first payload is found in %+v, %v", u, ok)
	}
	add(ways)
	if _, _, ok := k.find("job", digest(1)); ok {
		t.Error("the payload that was not asked for longest is still there")
	}
	for _, i := range []int{0, 2, ways} {
		at, u, ok := k.find("job", digest(i))
		if !ok || u.name != fmt.Sprint("u", i) || at.offset != int64(i) {
			t.Errorf("payload %d is found in %+v at %d, %v", i, u, at.offset, ok)
		}
	}
	if _, _, ok := k.find("another", digest(2)); ok {
		t.Error("a payload of one job is found for another")
	}
	for i := range 10_000 {
		add(i)
	}
	if len(k.units) > ways+1 {
		t.Errorf("%d units are remembered for %d payloads", len(k.units), ways)
	}
}
