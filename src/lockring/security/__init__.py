"""The way in: TLS, credentials, the ACL file and the audit log. Decisions are `core.access`'s."""
