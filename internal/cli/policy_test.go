package cli

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/hosts/rules"
)

// The two say it each in its own package, so that neither has to know the other.
func TestOneRuleForRatesInFlagsAndInTheFleetsRules(t *testing.T) {
	const says = "a rate is requests per second, 0.00001 to 1000000, or 0 for no limit"
	for text, ok := range map[string]bool{
		"0": true, "1e-5": true, "0.00001": true, "5": true, "1e6": true,
		"1e-9": false, "0.0000099": false, "1000000.1": false, "1e9": false, "-1": false, "inf": false, "-inf": false, "nan": false,
	} {
		rate, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		_, _, flagErr := (&PolicyFlags{HostRate: &rate}).Spec()
		_, ruleErr := rules.Parse("hosts", strings.NewReader("x.test rate="+text))
		for what, err := range map[string]error{"--host-rate": flagErr, "rate=": ruleErr} {
			if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("%s %s: %v, want taken: %v", what, text, err, ok)
			}
		}
	}
}
