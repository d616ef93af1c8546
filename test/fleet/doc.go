// Package fleet holds the end-to-end tests of a fleet: real worker, enqueue and fleet processes, a real Redis and an
// origin on loopback. The processes are killed, stopped and starved, and the job has to come out whole.
//
// The commands are built once per run, with the build tag faultpoints, and with the race detector when the tests have
// it. Redis comes from package redistest: without redis-server the tests are skipped, and fail where CI=true.
// FLEET_TEST_URLS and FLEET_TEST_STOP change how many URLs the large test fetches (20000) and how long a worker is
// stopped for (60s).
package fleet
