package charset

// Sniffer names the encoding of a body that passes by in pieces. Its zero value names none. It keeps a copy only of a
// beginning that comes in pieces smaller than Head.
type Sniffer struct {
	contentType string
	head        []byte
	name        string
	open        bool // the beginning is not complete yet
}

// NewSniffer is for a body of that Content-Type.
func NewSniffer(contentType string) Sniffer { return Sniffer{contentType: contentType, open: true} }

// See takes the next piece.
func (s *Sniffer) See(p []byte) {
	switch {
	case !s.open:
	case len(s.head) == 0 && len(p) >= Head:
		s.decide(p)
	default:
		s.head = append(s.head, p[:min(len(p), Head-len(s.head))]...)
		if len(s.head) == Head {
			s.decide(s.head)
		}
	}
}

func (s *Sniffer) decide(head []byte) {
	s.name, s.open, s.head = Of(s.contentType, head), false, nil
}

// Charset names the encoding, from what has passed; see Of.
func (s *Sniffer) Charset() string {
	if s.open {
		s.decide(s.head)
	}
	return s.name
}
