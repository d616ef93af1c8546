package enqueuer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
)

func (b *bench) refetch(ctx context.Context, each func(context.Context, func(enqueuer.Again) error) error) (enqueuer.Counts, error) {
	e := enqueuer.New(b.ledger, dispatch.New(b.rdb, b.ledger), enqueuer.Options{Job: job, Spec: b.spec})
	err := e.Refetch(ctx, each)
	return e.Counts(), err
}

// these brings requests one after another.
func these(all ...enqueuer.Again) func(context.Context, func(enqueuer.Again) error) error {
	return func(_ context.Context, do func(enqueuer.Again) error) error {
		for _, a := range all {
			if err := do(a); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestTheRequestsOfAnEarlierJobAreMadeAgain(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	since := &tasks.Since{ETag: `"1"`, Body: "bodies/aa"}
	all := []enqueuer.Again{
		{Method: "GET", URL: "http://h/plain"},
		{Method: "GET", URL: "http://h/known", Since: since},
		{Method: "HEAD", URL: "http://h/head", Meta: []byte(`{"n":1}`), Since: since},
		{Method: "GET", URL: "http://h/known", Since: since}, // under a key, which no record tells
		{Method: "GET", URL: "gopher://h/"},
	}
	counts, err := b.refetch(t.Context(), these(all...))
	want := enqueuer.Counts{Lines: 5, Accepted: 3, Duplicates: 1, BadLines: 1, Conditional: 2, Batches: counts.Batches}
	if err != nil || counts != want {
		t.Errorf("counts %+v, %v; want %+v", counts, err, want)
	}
	got := b.requests()
	slices.SortFunc(got, func(a, b tasks.Request) int { return strings.Compare(a.URL, b.URL) })
	if diff := cmp.Diff([]tasks.Request{
		{URL: "http://h/head", Method: "HEAD", Meta: []byte(`{"n":1}`), Since: since},
		{URL: "http://h/known", Since: since}, {URL: "http://h/plain"},
	}, got); diff != "" {
		t.Error(diff)
	}
	if counts, err := b.refetch(t.Context(), these(all...)); err != nil || counts.Accepted != 0 || counts.Duplicates != 4 || counts.Conditional != 0 {
		t.Errorf("once more: %+v, %v", counts, err)
	}
	b.once(3)
}

func TestARefetchThatStopsSaysWhyAndTheNextTakesTheRest(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why, broken := errors.New("interrupted"), errors.New("disk is gone")
	var all []enqueuer.Again
	for i := range 2000 {
		all = append(all, enqueuer.Again{Method: "GET", URL: fmt.Sprintf("http://h%d/%d", i%20, i)})
	}
	_, err := b.refetch(t.Context(), func(ctx context.Context, do func(enqueuer.Again) error) error {
		return errors.Join(these(all[:700]...)(ctx, do), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the store", err)
	}
	_, err = b.refetch(ctx, func(ctx context.Context, do func(enqueuer.Again) error) error {
		if err := these(all[:1200]...)(ctx, do); err != nil {
			return err
		}
		cancel(why)
		return these(all[1200:]...)(ctx, do)
	})
	if !errors.Is(err, why) {
		t.Errorf("error %v, want why it was cancelled", err)
	}
	if _, err := b.refetch(t.Context(), these(all...)); err != nil {
		t.Error(err)
	}
	b.once(2000)
}

func TestAListTakesAlongWhatTheEarlierJobHas(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	since := &tasks.Since{LastModified: "yesterday"}
	var asked []string
	lines := []string{"http://h", `{"url":"http://h/k","key":"k"}`, `{"url":"http://h/head","method":"HEAD","retries":0}`,
		`{"url":"http://h/post","method":"POST"}`, `{"url":"http://h/body","body":"x","method":"GET"}`,
		fmt.Sprintf(`{"url":"http://h/large","body":%q,"method":"GET"}`, strings.Repeat("l", tasks.MaxInlineBody+1)), "http://h/unknown"}
	counts, err := b.run(t.Context(), strings.NewReader(strings.Join(lines, "\n")), func(o *enqueuer.Options) {
		o.Earlier = func(method, url, key string) (*tasks.Since, error) {
			asked = append(asked, method+" "+url+" "+key)
			if url == "http://h/unknown" {
				return nil, nil
			}
			return since, nil
		}
	})
	if err != nil || counts.Accepted != 7 || counts.Conditional != 3 {
		t.Errorf("counts %+v, %v", counts, err)
	}
	if diff := cmp.Diff([]string{"GET http://h/ ", "GET http://h/k k", "HEAD http://h/head ", "GET http://h/unknown "}, asked); diff != "" {
		t.Error(diff)
	}
	for _, r := range b.requests() {
		if want := slices.Contains([]string{"http://h/", "http://h/k", "http://h/head"}, r.URL); (r.Since != nil) != want {
			t.Errorf("%s: since %+v", r.URL, r.Since)
		}
	}
	broken := errors.New("the index is gone")
	_, err = b.run(t.Context(), strings.NewReader("http://h/other"), func(o *enqueuer.Options) {
		o.Earlier = func(_, _, _ string) (*tasks.Since, error) { return nil, broken }
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the index", err)
	}
}
