-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION pg_background UPDATE" to load this file. \quit

-- Nothing: the step to 2.0 takes the catalog of any 1.x to that of 2.0.
