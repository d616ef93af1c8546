package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"mime/multipart"
	"net/textproto"
	"path/filepath"
	"strings"
	"unicode"
)

// TypeFile is the Content-Type of a file that says none. It is not guessed from the file's name, because what is guessed
// differs between machines.
const TypeFile = "application/octet-stream"

// Part is one part of a multipart/form-data body (RFC 7578).
type Part struct {
	Name     string
	Filename string // "" = a field, not a file
	Type     string // Content-Type; "" = none for a field, TypeFile for a file
	Data     []byte
}

// Check names what keeps a part from being sent.
func (p *Part) Check() error {
	if p.Name == "" {
		return errors.New("a part needs a name")
	}
	for _, s := range []string{p.Name, p.Filename, p.Type} {
		if strings.ContainsFunc(s, unicode.IsControl) {
			return errors.New("a name, file name or type holds a line break or another control character")
		}
	}
	if p.Type != "" {
		if _, _, err := mime.ParseMediaType(p.Type); err != nil {
			return fmt.Errorf("%.60q is no content type", p.Type)
		}
	}
	return nil
}

// Multipart builds the body and its Content-Type. The boundary is derived from the parts, so that the same parts are the
// same body. A body above MaxBody is ErrTooLarge.
func Multipart(parts []Part) (body []byte, contentType string, err error) {
	size := 0
	for i := range parts {
		if err := parts[i].Check(); err != nil {
			return nil, "", err
		}
		if size += len(parts[i].Data) + 256; size > MaxBody {
			return nil, "", ErrTooLarge
		}
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.SetBoundary(boundary(parts)); err != nil {
		return nil, "", err
	}
	for i := range parts {
		to, err := w.CreatePart(parts[i].header())
		if err != nil {
			return nil, "", err
		}
		_, _ = to.Write(parts[i].Data) // into memory
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	if b.Len() > MaxBody {
		return nil, "", ErrTooLarge
	}
	return b.Bytes(), w.FormDataContentType(), nil
}

// quoted escapes a name as browsers do (HTML, "multipart form data" encoding algorithm).
var quoted = strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A")

func (p *Part) header() textproto.MIMEHeader {
	disposition := `form-data; name="` + quoted.Replace(p.Name) + `"`
	kind := p.Type
	if p.Filename != "" {
		disposition += `; filename="` + quoted.Replace(p.Filename) + `"`
		if kind == "" {
			kind = TypeFile
		}
	}
	h := textproto.MIMEHeader{"Content-Disposition": {disposition}}
	if kind != "" {
		h["Content-Type"] = []string{kind}
	}
	return h
}

// boundary is a digest of the parts that none of them holds.
func boundary(parts []Part) string {
	for salt := uint64(0); ; salt++ {
		h := sha256.New()
		var n [8]byte
		field := func(data []byte) { // its length first, so that no two lists of parts read alike
			binary.BigEndian.PutUint64(n[:], uint64(len(data)))
			_, _ = h.Write(n[:])
			_, _ = h.Write(data)
		}
		binary.BigEndian.PutUint64(n[:], salt)
		_, _ = h.Write(n[:])
		for i := range parts {
			p := &parts[i]
			field([]byte(p.Name))
			field([]byte(p.Filename))
			field([]byte(p.Type))
			field(p.Data)
		}
		mark := "fetchfleet-" + hex.EncodeToString(h.Sum(nil)[:20])
		if !held(parts, mark) {
			return mark
		}
	}
}

func held(parts []Part, mark string) bool {
	for i := range parts {
		if bytes.Contains(parts[i].Data, []byte(mark)) {
			return true
		}
	}
	return false
}

// Field is one --form: a field with a value, or a file to be read.
type Field struct {
	Pair            // the value is not used where File is set
	File     string // "" = a field
	Type     string
	Filename string // as sent; that of the file where nothing else was said
}

// ParseField reads NAME=VALUE, NAME=@FILE or NAME=@FILE;type=T;filename=F, where "@@" begins a value with a literal "@".
func ParseField(text string) (Field, error) {
	pair, err := ParsePair(text)
	if err != nil {
		return Field{}, errors.New("write NAME=VALUE or NAME=@FILE")
	}
	rest, ok := strings.CutPrefix(pair.Value, "@")
	if !ok {
		return Field{Pair: pair}, nil
	}
	if strings.HasPrefix(rest, "@") {
		pair.Value = rest
		return Field{Pair: pair}, nil
	}
	f := Field{Pair: Pair{Name: pair.Name}}
	f.File, f.Type, f.Filename = settings(rest)
	if f.File == "" {
		return Field{}, fmt.Errorf("%s: name a file after @, or write @@ for a literal @", pair.Name)
	}
	if f.Filename == "" {
		f.Filename = filepath.Base(f.File)
	}
	return f, (&Part{Name: f.Name, Filename: f.Filename, Type: f.Type}).Check()
}

// settings splits FILE;type=T;filename=F at what begins a setting, so that a type may have parameters of its own and a
// file a semicolon.
func settings(text string) (file, kind, name string) {
	file = text
	for {
		t, n := strings.LastIndex(file, ";type="), strings.LastIndex(file, ";filename=")
		switch {
		case t < 0 && n < 0:
			return file, kind, name
		case t > n:
			file, kind = file[:t], strings.TrimSpace(file[t+len(";type="):])
		default:
			file, name = file[:n], file[n+len(";filename="):]
		}
	}
}

// Part reads the field's file if it has one; "-" is no file here.
func (f *Field) Part() (Part, error) {
	if f.File == "" {
		return Part{Name: f.Name, Data: []byte(f.Value)}, nil
	}
	data, err := ReadFile(f.File)
	return Part{Name: f.Name, Filename: f.Filename, Type: f.Type, Data: data}, err
}
