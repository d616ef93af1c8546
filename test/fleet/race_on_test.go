//go:build race

package fleet_test

// raceDetector says that the tests have the race detector; then the processes they start have it too.
const raceDetector = true
