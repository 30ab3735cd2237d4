-- Add a message type with its payload schema, or change what is not null of one; the caller compiles a schema into a check.
insert into message_types (name, description, schema)
values (:name, coalesce(:description, ''), coalesce(:schema, '{"type": "object"}'))
on conflict (name) do update set
  description = coalesce(:description, message_types.description), schema = coalesce(:schema, message_types.schema);
