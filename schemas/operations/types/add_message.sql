-- Add a message type with its payload schema, or change one; the caller compiles the schema into a trigger.
insert into message_types (name, description, schema) values (:name, :description, :schema)
on conflict (name) do update set description = excluded.description, schema = excluded.schema;
