package warcstore

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// What was found once in the dedupe index is remembered; each time it is told as the body of the earlier job.
func TestWhatADedupeIndexHasIsFoundByEveryUnitAndJob(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	page := answer{url: "http://x.test/", status: 200, body: text(7, 900)}
	own := storeUnit(t, s, "b1", page)[0]
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Fatal(err)
	}
	later := openTest(t, dir, Options{DedupeIndex: s.jobPath(testJob, mergedFolder)})
	for _, at := range []struct{ job, batch, want string }{
		{"later", "b1", "../" + testJob + "/" + own.Body},
		{"later", "b2", "../" + testJob + "/" + own.Body},
		{"last", "b1", "../" + testJob + "/" + own.Body},
		{testJob, "b2", own.Body},
	} {
		u, err := later.Begin(t.Context(), at.job, at.batch)
		if err != nil {
			t.Fatal(err)
		}
		ref := fetch(t, u, page)
		if ref.Body != at.want {
			t.Errorf("unit %s of job %s has body %s, want %s", at.batch, at.job, ref.Body, at.want)
		}
		wantBody(t, later, &store.Record{Job: at.job, Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body}, page.body)
		if err := u.Discard(); err != nil {
			t.Error(err)
		}
	}
}

// The head of an answer may be longer than any buffer, and name codings that are none.
func TestCodingsInALongFieldAreUndone(t *testing.T) {
	for claim, values := range map[string][]string{
		"in one field":   {strings.Repeat("identity, ", 2000) + "gzip"},
		"in many fields": append(strings.Split(strings.Repeat("identity ", 2000), " "), "gzip"),
	} {
		t.Run(claim, func(t *testing.T) {
			s := openTest(t, t.TempDir(), Options{})
			u, account, _, err := beginUnit(t, s, "b1")
			if err != nil {
				t.Fatal(err)
			}
			page := answer{url: "http://x.test/", status: 200, body: text(7, 90_000), gzipped: true}
			meta, sent := page.meta(t)
			meta.Exchange.Response["Content-Encoding"] = values
			w, err := u.Body(t.Context(), meta)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			if _, err := w.(store.ExchangeWriter).Sent(sent); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(page.body); err != nil {
				t.Fatal(err)
			}
			ref, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			r := record("b1", 0, page, ref)
			account.Entries = append(account.Entries, store.Entry{ID: r.ID, Fate: store.Recorded})
			if err := u.Add(r); err != nil {
				t.Fatal(err)
			}
			if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
				t.Fatalf("Commit: won %v, %v", won, err)
			}
			wantBody(t, s, r, page.body)
			wantSound(t, s)
		})
	}
}

// Between the listing of units and the reading of one, another worker may commit it late and not have taken it back yet.
func TestAUnitThatWasMergedIsNotMergedAgain(t *testing.T) {
	for claim, there := range map[string]bool{"not taken back yet": true, "taken back": false} {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{})
			first := answer{url: "http://x.test/", status: 200, body: []byte("first")}
			r := storeUnit(t, s, "b1", first)[0]
			path := s.unitPath(testJob, "b1", warc.Gzip)
			late, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Compact(t.Context(), testJob); err != nil {
				t.Fatal(err)
			}
			storeUnit(t, s, "b2", answer{url: "http://x.test/2", status: 200, body: []byte("second")})
			if there {
				if err := os.WriteFile(path, late, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			rest, damaged, err := s.mergeOne(t.Context(), testJob, []string{"b1", "b2", "b3"}) // b3 was taken back, too
			if err != nil || damaged != nil || len(rest) > 0 {
				t.Errorf("merge of those: left %q, damaged %v, error %v", rest, damaged, err)
			}
			if loose, err := s.unmerged(t.Context(), testJob); err != nil || len(loose) > 0 {
				t.Errorf("units %q have files of their own (%v)", loose, err)
			}
			for _, file := range filesWith(t, dir, "00002.warc.gz") {
				list, _, err := s.indexOf(t.Context(), file)
				if err != nil || len(list) != 1 || list[0].unit != "b2" {
					t.Errorf("%s has %+v (%v), want b2 alone", file, list, err)
				}
			}
			wantBody(t, s, r, []byte("first"))
			wantSound(t, s)
		})
	}
}

func TestVerifyBesideAMergeFindsNothingWrong(t *testing.T) {
	dir := t.TempDir()
	s, looks := openTest(t, dir, Options{}), openTest(t, dir, Options{})
	for _, batch := range []string{"b1", "b2", "b3"} {
		storeUnit(t, s, batch, answer{url: "http://x.test/" + batch, status: 200, body: bytes.Repeat([]byte(batch), 300)})
	}
	passed := map[string]bool{}
	s.step = func(step string) {
		passed[step] = true
		for _, f := range findings(t, looks, testJob, false) {
			t.Errorf("at %q Verify found %+v", step, f)
		}
	}
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Fatal(err)
	}
	for _, step := range mergeSteps {
		if !passed[step] {
			t.Errorf("the merge did not come by %q", step)
		}
	}
	wantSound(t, looks)
}
