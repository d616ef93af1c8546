package rows

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mysqlServer speaks as much of MySQL's protocol 10 as a client needs that logs in, begins a transaction and asks one
// query: a greeting, OK packets, and a text answer.
type mysqlServer struct {
	address string
	columns []mysqlColumn
	rows    [][]string // "\x00" is NULL

	mu      sync.Mutex
	queries []string
}

type mysqlColumn struct {
	name    string
	kind    byte // the protocol's type
	charset byte // 63 = bytes, 45 = utf8mb4
}

func startMySQL(t *testing.T, columns []mysqlColumn, rows [][]string) *mysqlServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mysqlServer{address: listener.Addr().String(), columns: columns, rows: rows}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				s.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		served.Wait()
	})
	return s
}

func (s *mysqlServer) serve(conn net.Conn) {
	sequence := byte(0)
	send := func(payload []byte) {
		head := []byte{byte(len(payload)), byte(len(payload) >> 8), byte(len(payload) >> 16), sequence}
		_, _ = conn.Write(append(head, payload...))
		sequence++
	}
	receive := func() []byte {
		var head [4]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil
		}
		data := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
		if _, err := io.ReadFull(conn, data); err != nil {
			return nil
		}
		sequence = head[3] + 1
		return data
	}
	greeting := append([]byte{10}, "8.0.0-test\x00"...)
	greeting = append(greeting, 1, 0, 0, 0)
	greeting = append(greeting, "12345678\x00"...)
	const capabilities = uint32(0x00000001 | 0x00000200 | 0x00002000 | 0x00008000 | 0x00080000) // long password, 4.1, transactions, secure, plugin
	greeting = append(greeting, byte(capabilities&0xff), byte(capabilities>>8&0xff), 45, 2, 0, byte(capabilities>>16&0xff), byte(capabilities>>24), 21)
	greeting = append(greeting, make([]byte, 10)...)
	greeting = append(greeting, "123456789012\x00mysql_native_password\x00"...)
	send(greeting)
	ok, eof := []byte{0, 0, 0, 2, 0, 0, 0}, []byte{0xfe, 0, 0, 2, 0}
	if receive() == nil {
		return
	}
	send(ok)
	for {
		command := receive()
		if command == nil || command[0] == 1 { // COM_QUIT
			return
		}
		if command[0] != 3 || !strings.HasPrefix(string(command[1:]), "SELECT") {
			s.note(command)
			send(ok)
			continue
		}
		s.note(command)
		send([]byte{byte(len(s.columns))})
		for _, c := range s.columns {
			send(c.definition())
		}
		send(eof)
		for _, row := range s.rows {
			send(textRow(row))
		}
		send(eof)
	}
}

func (s *mysqlServer) note(command []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, string(command[1:]))
}

func lengthEncoded(s string) []byte { return append([]byte{byte(len(s))}, s...) } // up to 250 bytes

func (c mysqlColumn) definition() []byte {
	b := lengthEncoded("def")
	for _, s := range []string{"", "", "", c.name, c.name} {
		b = append(b, lengthEncoded(s)...)
	}
	b = append(b, 0x0c, c.charset, 0)
	b = binary.LittleEndian.AppendUint32(b, 255)
	return append(b, c.kind, 0, 0, 0, 0, 0)
}

func textRow(cells []string) (b []byte) {
	for _, cell := range cells {
		if cell == "\x00" {
			b = append(b, 0xfb)
			continue
		}
		b = append(b, lengthEncoded(cell)...)
	}
	return b
}

func TestMySQLValuesAreWhatTheyAreInJSON(t *testing.T) {
	s := startMySQL(t, []mysqlColumn{{"i", 8, 63}, {"d", 246, 63}, {"s", 253, 45}, {"b", 252, 63}, {"n", 253, 45}, {"t", 12, 63}},
		[][]string{{"7", "12.30", "é", "\xff", "\x00", "2026-01-02 03:04:05"}})
	got, err := answer(t, "mysql://fleet:hunter2@"+s.address+"/shop", "SELECT * FROM t")
	want := []string{`{"i":7,"d":12.30,"s":"é","b":"/w==","n":null,"t":"2026-01-02T03:04:05Z"}`}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.queries, func(q string) bool { return strings.Contains(strings.ToUpper(q), "READ ONLY") }) {
		t.Errorf("no transaction was read-only: %q", s.queries)
	}
}
