-- Made by bin/generate: puts a row into agent_types, as it was taken; see bus/copying.py.
insert into agent_types (name, description) values (
  :name,
  :description);
