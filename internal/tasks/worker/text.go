package worker

import (
	"errors"
	"io"
	"net/http"

	"github.com/fetchfleet/fetchfleet/internal/charset"
	"github.com/fetchfleet/fetchfleet/internal/coding"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
)

// textOf names the encoding of an answer's body as it passes. Of a body that does not begin where the text does, or is kept
// as it is coded, only Content-Type tells.
func textOf(resp *fetch.Response) charset.Sniffer {
	s := charset.NewSniffer(resp.ContentType)
	asCoded := !resp.Coded() && len(coding.Names(resp.Header["Content-Encoding"])) > 0
	if resp.Status == http.StatusPartialContent || asCoded {
		s.Charset()
	}
	return s
}

// textOfPart names the encoding of a part that becomes a body as it is.
func (a *attempt) textOfPart(resp *fetch.Response) (string, error) {
	s := charset.NewSniffer(resp.ContentType)
	if len(coding.Names(resp.Header["Content-Encoding"])) > 0 { // it is kept as it is coded
		return s.Charset(), nil
	}
	body, err := a.part.Open()
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }()
	head := make([]byte, charset.Head)
	n, err := io.ReadFull(body, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	s.See(head[:n])
	return s.Charset(), nil
}
