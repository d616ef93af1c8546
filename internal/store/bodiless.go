package store

// Bodiless is a Store that may keep records alone. Beside another store it is then given no bodies, and its records say
// in Body where the body is in that other one.
type Bodiless interface {
	Store
	// Bodiless reports whether it keeps no bodies.
	Bodiless() bool
}
