package pgstore

import (
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

func TestVerifyFinds(t *testing.T) {
	tests := map[string]struct {
		damage     string
		kind, says string
		note       bool
		mended     bool // by repair, so that nothing is found afterwards
	}{
		"a record that is gone":            {damage: `DELETE FROM records WHERE id = 'b002-1'`, kind: "structure", says: "2 records, was committed with 3"},
		"records of no unit":               {damage: `DELETE FROM units WHERE unit = 'b001'`, kind: "orphan", says: "2 records of no unit", mended: false},
		"a body that is gone":              {damage: `DELETE FROM bodies b USING records r WHERE owner = unit_key AND r.id = 'b002-2' AND r.body LIKE '%.' || b.body`, kind: "missing", says: "is not there"},
		"a row of a body that is gone":     {damage: `DELETE FROM bodies WHERE n = 0 AND EXISTS (SELECT FROM bodies o WHERE o.owner = bodies.owner AND o.body = bodies.body AND n = 1)`, kind: "missing", says: "1 of 2 rows"},
		"a body that is too short":         {damage: `UPDATE bodies SET data = substr(data, 2) WHERE n = 1`, kind: "length", says: "the record says"},
		"an account of another unit":       {damage: `UPDATE units SET unit = 'b009' WHERE unit = 'b001'`, kind: "structure", says: "its account is of unit b001"},
		"an account with another count":    {damage: `UPDATE units SET account = replace(account::text, '"recorded"', '"retry"')::json WHERE unit = 'b001'`, kind: "structure", says: "its account 0"},
		"an account of a newer program":    {damage: `UPDATE units SET account = '{"v":99}' WHERE unit = 'b001'`, kind: "structure", says: "version 99"},
		"bodies of nothing":                {damage: `INSERT INTO bodies VALUES (gen_random_uuid(), 1, 0, 'x')`, kind: "orphan", says: "no unit and no part", mended: true},
		"a body without a record":          {damage: `INSERT INTO bodies SELECT key, 99, 0, 'x' FROM units WHERE unit = 'b001'`, kind: "orphan", says: "no record of the unit", note: true},
		"a unit that was never committed":  {damage: `INSERT INTO writing VALUES (gen_random_uuid(), 'job', 'gone', now() - interval '2 hours')`, kind: "temporary", says: "worker gone began", note: true, mended: true},
		"the beginning of a body":          {damage: `INSERT INTO parts VALUES ('job', 'r', gen_random_uuid(), NULL, 5)`, kind: "temporary", says: "5 bytes", note: true},
		"a unit of which somebody is busy": {damage: `INSERT INTO writing VALUES (gen_random_uuid(), 'job', 'busy')`, kind: "temporary", says: "worker busy began", note: true},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			raw := shared.Server(t).Database(t)
			s := openTest(t, raw, Options{})
			for i := range 3 {
				if err := commitCrashUnit(t.Context(), s, i); err != nil {
					t.Fatal(err)
				}
			}
			if found := verified(t, s, false); len(found) != 0 {
				t.Fatalf("a sound store has %+v", found)
			}
			pgtest.Exec(t, raw, "SET search_path = fetchfleet; "+tt.damage)
			for _, repair := range []bool{false, true} {
				hit := false
				for _, f := range verified(t, s, repair) {
					hit = hit || f.Kind == tt.kind && strings.Contains(f.What, tt.says) && f.Note == tt.note && f.Mended == (repair && tt.mended)
				}
				if !hit {
					t.Errorf("with repair %v, Verify found %+v, want %s %q", repair, verified(t, s, false), tt.kind, tt.says)
				}
			}
			if left := verified(t, s, false); tt.mended != (len(left) == 0) {
				t.Errorf("after repair there is %+v", left)
			}
		})
	}
}

func verified(t *testing.T, s *Store, repair bool) (found []store.Finding) {
	t.Helper()
	if err := s.Verify(t.Context(), crashJob, repair, func(f store.Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	return found
}
