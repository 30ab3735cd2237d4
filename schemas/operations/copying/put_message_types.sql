-- Made by bin/generate: puts a row into message_types, as it was taken; see bus/copying.py.
insert into message_types (name, description, schema) values (
  :name,
  :description,
  :schema);
