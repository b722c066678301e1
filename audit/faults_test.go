package audit_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"waybill"
	"waybill/audit"
	"waybill/internal/pg"
	"waybill/internal/pgtest"
)

// cutter stands between a client and Postgres. Once armed it passes the next COMMIT on and loses the answer: the client
// sees its connection break, the server goes on for as long as it needs.
type cutter struct {
	armed atomic.Bool
	cuts  atomic.Int64
}

// through opens a pool whose connections go through the cutter.
func (c *cutter) through(t *testing.T, pool *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	cfg := pool.Config().ConnConfig
	network, target := "tcp", net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
	if strings.HasPrefix(cfg.Host, "/") {
		network, target = "unix", fmt.Sprintf("%s/.s.PGSQL.%d", cfg.Host, cfg.Port)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, target)
			if err != nil {
				shut(client)
				continue
			}
			go func() {
				if _, err := io.Copy(client, server); err != nil {
					shut(server)
				}
				shut(client)
			}()
			go c.pump(client, server)
		}
	}()
	host, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	out, err := pg.Open(context.Background(), pg.Config{DSN: fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable", host, port, cfg.User, cfg.Password, cfg.Database)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		out.Close()
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	})
	return out
}

// shut ends a connection; the other side sees it, and an error here says that it had ended already.
func shut(c net.Conn) {
	if err := c.Close(); err != nil {
		return
	}
}

func (c *cutter) pump(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			shut(server)
			return
		}
		cut := strings.Contains(strings.ToLower(string(buf[:n])), "commit") && c.armed.CompareAndSwap(true, false)
		if cut { // before the server can answer
			c.cuts.Add(1)
			shut(client)
		}
		if _, err := server.Write(buf[:n]); err != nil {
			shut(client)
			return
		}
		if cut {
			time.Sleep(3 * time.Second)
			shut(server)
			return
		}
	}
}

// The reply to a COMMIT that takes its time is lost: the decision is in the log once, its caller has the receipt, and
// the log goes on.
func TestLog_SlowCommitReplyLost(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool := pgtest.DB(t)
	if _, err := pool.Exec(ctx, `CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON audit.decision DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.slow();`); err != nil {
		t.Fatal(err)
	}
	var c cutter
	key, _, err := audit.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, c.through(t, pool), key)
	c.armed.Store(true)
	id := waybill.NewID(time.Now())
	r, err := b.log.Append(ctx, decision(id, "a"))
	if err != nil || c.cuts.Load() != 1 {
		t.Fatalf("append with %d cuts: %v", c.cuts.Load(), err)
	}
	row, err := b.log.FindDecision(ctx, "acme", id)
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.VerifyReceipt(b.log.VerifierKey(), row.Leaf, r); err != nil {
		t.Error(err)
	}
	next, err := b.log.Append(ctx, decision(waybill.NewID(time.Now()), "b"))
	if err != nil || next.Index != r.Index+1 {
		t.Errorf("the next append: index %d after %d, %v", next.Index, r.Index, err)
	}
	if f := b.verify(t); !f.OK || f.Entries != 2 {
		t.Errorf("log: %+v", f)
	}
}

// A change whose COMMIT had no answer is not called undone.
func TestInTx_ReplyLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool := pgtest.DB(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE public.x (i int)"); err != nil {
		t.Fatal(err)
	}
	var c cutter
	through := c.through(t, pool)
	c.armed.Store(true)
	err := pg.InTx(ctx, through, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO public.x VALUES (1)")
		return err
	})
	if waybill.CodeOf(err) != waybill.Deadline || !strings.Contains(err.Error(), "may stand or not") {
		t.Errorf("with %d cuts: %v", c.cuts.Load(), err)
	}
}

// A proof is made by the log that has the decision; another says which.
func TestLog_ProofOfAnotherLog(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b := setup(t)
	const other = "test.example/log/2"
	key, _, err := audit.GenerateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	l2, err := audit.Open(ctx, b.pool, audit.Config{LogID: 2, Origin: other, SignerKey: key})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l2.Run(ctx) }()
	for _, l := range []*audit.Log{b.log, b.log, l2} {
		id := waybill.NewID(time.Now())
		if _, err := l.Append(ctx, decision(id, id.String())); err != nil {
			t.Fatal(err)
		}
		_, err := b.log.DecisionProof(ctx, "acme", id)
		if l == l2 && (waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(err.Error(), "log 2")) || l != l2 && err != nil {
			t.Errorf("proof: %v", err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
