package security

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// manual gives the blocks of code of a kind under a heading of the operations
// manual: what operators are told to type is what the tests type.
func manual(heading, kind string) ([]string, error) {
	b, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		return nil, err
	}
	_, section, _ := strings.Cut(string(b), "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n### ")
	section, _, _ = strings.Cut(section, "\n## ")
	parts := strings.Split("\n"+section, "\n```")
	var blocks []string
	for i := 1; i < len(parts); i += 2 { // outside, inside, outside, …
		if block, ok := strings.CutPrefix(parts[i], kind+"\n"); ok {
			blocks = append(blocks, block)
		}
	}
	return blocks, nil
}

// grant runs the manual's kafka-acls.sh commands.
func grant(t *testing.T, admin *kadm.Client) {
	t.Helper()
	blocks, err := manual("Access control of Kafka", "sh")
	if err != nil || len(blocks) != 1 {
		t.Fatalf("%d blocks of commands, %v, want 1", len(blocks), err)
	}
	for line := range strings.Lines(blocks[0]) {
		b := acl(t, strings.Fields(line))
		if err := b.ValidateCreate(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		results, err := admin.CreateACLs(t.Context(), b)
		if err != nil || len(results) == 0 {
			t.Fatalf("%s: %d rights, %v", line, len(results), err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Fatalf("%s: %v", line, r.Err)
			}
		}
	}
}

// acl reads what kafka-acls.sh --add does, strictly.
func acl(t *testing.T, words []string) *kadm.ACLBuilder {
	t.Helper()
	if len(words) < 4 || words[0] != "kafka-acls.sh" || words[1] != "…" || words[2] != "--add" {
		t.Fatalf("%q: want kafka-acls.sh … --add", words)
	}
	b := kadm.NewACLs().AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	var operations []kadm.ACLOperation
	for words = words[3:]; len(words) > 1; words = words[2:] {
		switch value := words[1]; words[0] {
		case "--allow-principal":
			b.Allow(value)
		case "--operation":
			o, err := kmsg.ParseACLOperation(value)
			if err != nil {
				t.Fatal(err)
			}
			operations = append(operations, o)
		case "--topic":
			b.Topics(value)
		case "--transactional-id":
			b.TransactionalIDs(value)
		case "--group":
			b.Groups(value)
		case "--resource-pattern-type":
			p, err := kmsg.ParseACLResourcePatternType(value)
			if err != nil {
				t.Fatal(err)
			}
			b.ResourcePatternType(p)
		default:
			t.Fatalf("unknown option %s", words[0])
		}
	}
	if len(words) != 0 || len(operations) == 0 {
		t.Fatalf("left over: %q", words)
	}
	return b.Operations(operations...)
}
