//go:build unix

package fleet_test

import "testing"

// TestPoliteness measures at the origin, to a tenth of a second. So these tests run beside each other and before the
// others of this package, which take all the CPU that there is.
func TestPoliteness(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"WorkerWhoseClockIsOffTakesNoWork":       workerWhoseClockIsOffTakesNoWork,
		"LimitsAreKeptByClocksThatDiffer":        limitsAreKeptByClocksThatDiffer,
		"RobotsAreAskedFirst":                    robotsAreAskedFirst,
		"RobotsThatNeverAnswerEndTheJob":         robotsThatNeverAnswerEndTheJob,
		"RobotsMayBeIgnored":                     robotsMayBeIgnored,
		"FleetIsOnePoliteVisitor":                fleetIsOnePoliteVisitor,
		"PermitsOfTheDeadAreFree":                permitsOfTheDeadAreFree,
		"RetryAfterHoldsForTheWholeFleet":        retryAfterHoldsForTheWholeFleet,
		"OverloadWithoutRetryAfterCoolsTheFleet": overloadWithoutRetryAfterCoolsTheFleet,
		"HostsAtOneAddressAreOneServer":          hostsAtOneAddressAreOneServer,
		"RedirectsOfASlowHostAreFollowed":        redirectsOfASlowHostAreFollowed,
	} {
		t.Run(name, test)
	}
}
