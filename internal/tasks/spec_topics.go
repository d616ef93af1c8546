package tasks

// topic is a group of a spec's fields that came after version 1, in a struct and a file of its own that Spec embeds: in
// JSON its fields stand among the others, each omitempty, so that a spec that uses none reads as it always did. It must
// not have a method of encoding/json or of encoding, which Spec would inherit.
type topic interface {
	// validate names the first field that cannot be, by its flag.
	validate() error
	// used reports whether any field is set. A worker that does not know the field would do something else than was
	// asked for, so it must leave the job alone.
	used() bool
	// fields maps the flag of each field to the value in effect, for Difference.
	fields() map[string]string
}

// topics lists what Spec embeds.
func (s *Spec) topics() []topic {
	return []topic{
		&s.Limits,
		&s.Wants,
		&s.ProtocolSpec,
		&s.AuthSpec,
	}
}

// Version is what V has to be where the spec is written: 1, which every worker of this major version takes, unless it
// asks for what only newer ones can do.
func (s *Spec) Version() int {
	for _, t := range s.topics() {
		if t.used() {
			return SpecVersion
		}
	}
	return 1
}

func (s *Spec) validateTopics() error {
	for _, t := range s.topics() {
		if err := t.validate(); err != nil {
			return err
		}
	}
	return nil
}
