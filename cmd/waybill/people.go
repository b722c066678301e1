package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	accessv1 "waybill/proto/waybill/access/v1"
)

func newWhoami(cl *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Say who the token belongs to", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.access.WhoAmI(ctx, &accessv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			return p.say(res, "%s, a %s of tenant %s; roles: %s; policy revision %d", res.GetAccount(), res.GetKind(), res.GetTenant(),
				strings.Join(res.GetRoles(), ", "), res.GetPolicyRev())
		})}
}

func newAccount(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "People, service accounts and their roles", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var n accessv1.CreateAccountRequest
	create := &cobra.Command{Use: "create ACCOUNT --kind KIND --role ROLE", Short: "Add an account", Args: exact("ACCOUNT"),
		Example: "  waybill account create shop --kind service --role serving",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			n.Account = args[0]
			res, err := c.access.CreateAccount(ctx, &n)
			if err != nil {
				return err
			}
			return p.say(res, "%s is a %s with the roles: %s", args[0], n.GetKind(), strings.Join(res.GetAccount().GetRoles(), ", "))
		})}
	create.Flags().StringVar(&n.Kind, "kind", "person", "person or service")
	create.Flags().StringVar(&n.DisplayName, "name", "", "name for people to read")
	create.Flags().StringSliceVar(&n.Roles, "role", nil, "data-scientist, approver, serving, reviewer, operator, compliance, auditor or admin (repeatable)")
	list := &cobra.Command{Use: "list", Short: "List accounts", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.access.ListAccounts(ctx, &accessv1.ListAccountsRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, a := range res.GetAccounts() {
				rows = append(rows, []any{a.GetAccount(), a.GetKind(), strings.Join(a.GetRoles(), ", "), a.GetDisplayName()})
			}
			return p.table(res, []string{"ACCOUNT", "KIND", "ROLES", "NAME"}, rows)
		})}
	grant := &cobra.Command{Use: "grant ACCOUNT ROLE", Short: "Give a role", Args: exact("ACCOUNT", "ROLE"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.access.BindRole(ctx, &accessv1.BindRoleRequest{Account: args[0], Role: args[1]})
			if err != nil {
				return err
			}
			return p.say(res, "%s has the role %s from policy revision %d", args[0], args[1], res.GetPolicyRev())
		})}
	take := &cobra.Command{Use: "take ACCOUNT ROLE", Short: "Take a role away", Args: exact("ACCOUNT", "ROLE"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.access.UnbindRole(ctx, &accessv1.UnbindRoleRequest{Account: args[0], Role: args[1]})
			if err != nil {
				return err
			}
			return p.say(res, "%s lacks the role %s from policy revision %d", args[0], args[1], res.GetPolicyRev())
		})}
	explain := &cobra.Command{Use: "explain ACCOUNT RESOURCE ACTION", Short: "Say why an account may do a thing, or why not", Args: exact("ACCOUNT", "RESOURCE", "ACTION"),
		Example: "  waybill account explain shop endpoint/route decide",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.access.ExplainAccess(ctx, &accessv1.ExplainAccessRequest{Account: args[0], Resource: args[1], Action: args[2]})
			if err != nil {
				return err
			}
			answer, why := "no", "no rule allows it"
			if res.GetAllowed() {
				answer = "yes"
			}
			if r := res.GetRule(); r != nil {
				why = fmt.Sprintf("%s %s %s on %s", r.GetSubject(), r.GetEffect(), r.GetAction(), r.GetObject())
			}
			return p.say(res, "%s: %s (roles: %s; policy revision %d)", answer, why, strings.Join(res.GetRoles(), ", "), res.GetPolicyRev())
		})}
	cmd.AddCommand(create, list, grant, take, explain)
	return cmd
}

func newToken(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Issue, list and revoke tokens", Args: exact(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var ttl time.Duration
	var scopes []string
	issue := &cobra.Command{Use: "issue ACCOUNT", Short: "Make a token; it is shown this once", Args: exact("ACCOUNT"),
		Example: "  waybill token issue shop --ttl 720h --scope decide",
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.access.IssueToken(ctx, &accessv1.IssueTokenRequest{Account: args[0], TtlSeconds: int64(ttl / time.Second), Scopes: scopes})
			if err != nil {
				return err
			}
			notes(cl.env.Err)("token %s of %s is good until %s; this is the only time it is shown", res.GetToken().GetTokenId(), args[0], day(res.GetToken().GetExpiresAt()))
			return p.say(res, "%s", res.GetSecret())
		})}
	issue.Flags().DurationVar(&ttl, "ttl", 30*24*time.Hour, "how long it is good for, at most a year")
	issue.Flags().StringSliceVar(&scopes, "scope", nil, "the only actions it is good for (repeatable); by default all of the account's")
	list := &cobra.Command{Use: "list", Short: "List tokens without their secrets", Args: exact(),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, _ []string) error {
			res, err := c.access.ListTokens(ctx, &accessv1.ListTokensRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			var rows [][]any
			for _, t := range res.GetTokens() {
				rows = append(rows, []any{t.GetTokenId(), t.GetAccount(), strings.Join(t.GetScopes(), ","), day(t.GetExpiresAt()), day(t.GetRevokedAt()), day(t.GetLastUsedAt())})
			}
			return p.table(res, []string{"TOKEN", "ACCOUNT", "SCOPES", "EXPIRES", "REVOKED", "LAST USED"}, rows)
		})}
	revoke := &cobra.Command{Use: "revoke TOKEN", Short: "End a token on every node within a second", Args: exact("TOKEN"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.access.RevokeToken(ctx, &accessv1.RevokeTokenRequest{TokenId: args[0]})
			if err != nil {
				return err
			}
			return p.say(res, "token %s is dead from policy revision %d", args[0], res.GetPolicyRev())
		})}
	cmd.AddCommand(issue, list, revoke)
	return cmd
}

func newTenant(cl *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "tenant", Short: "Make tenants", Args: exact(), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var who string
	create := &cobra.Command{Use: "create TENANT --admin ACCOUNT", Short: "Make a tenant; its administrator's token is shown this once", Args: exact("TENANT"),
		RunE: cl.call(func(ctx context.Context, c *client, p printer, args []string) error {
			res, err := c.access.CreateTenant(ctx, &accessv1.CreateTenantRequest{Tenant: args[0], Admin: who})
			if err != nil {
				return err
			}
			return p.say(res, "%s", res.GetToken())
		})}
	create.Flags().StringVar(&who, "admin", "", "its administrator")
	cmd.AddCommand(create)
	return cmd
}
