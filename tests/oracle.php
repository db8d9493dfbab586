<?php
// SPDX-License-Identifier: MIT
// The other side of test_php_oracle.py: the same cases as src/proto/gw/php_oracle.c reads ("<operation> <hex> ..."),
// answered by PHP itself, in hex, or "!" where PHP fails.
ini_set('display_errors', 'stderr');
ini_set('memory_limit', '1G');
error_reporting(0);

class Refused extends Exception {}

function unserialize_or_refuse(string $s, array $options = [])
{
    $v = @unserialize($s, $options);
    if ($v === false && !str_starts_with($s, 'b:0;')) {
        throw new Refused();
    }
    return $v;
}

// Assignments as in a session handler: the first array is given up before the result is serialized, the second is not.
function merge(string $session, string $patch): string
{
    $a = unserialize_or_refuse($session);
    $b = unserialize_or_refuse($patch);
    $a = array_replace_recursive($a, $b);
    return serialize($a);
}

function to_json(string $s): string
{
    $v = unserialize_or_refuse($s, ['allowed_classes' => false]);
    if (is_scalar($v)) {
        return (string)$v;
    }
    $json = json_encode($v, JSON_UNESCAPED_UNICODE);
    if ($json === false) {
        throw new Refused();
    }
    return $json;
}

function query_of(string $target): string
{
    return parse_url($target)['query'] ?? '';
}

function variables(string $query): array
{
    $result = [];
    parse_str($query, $result);
    return $result;
}

function cookies(string $header): array
{
    $result = [];
    foreach (explode(';', $header) as $piece) {
        [$name, $value] = explode('=', $piece, 2) + [1 => null];
        if ($value !== null) {
            $result[trim($name)] = $value;
        }
    }
    return $result;
}

// What a gateway tells a worker of a handshake.
function ws_connect(string $method, string $target, string $version, string ...$pairs): string
{
    $headers = [];
    foreach (array_chunk($pairs, 2) as [$name, $value]) {
        $name = strtolower($name);
        $headers[$name] = isset($headers[$name]) ? "$headers[$name],$value" : $value;
    }
    $query = query_of($target);
    $server = ['QUERY_STRING' => $query, 'REQUEST_METHOD' => $method, 'REQUEST_URI' => $target,
        'SERVER_PROTOCOL' => "HTTP/$version", 'SERVER_NAME' => $headers['host'] ?? null,
        'CONTENT_TYPE' => $headers['content-type'] ?? null, 'REMOTE_ADDR' => '192.0.2.7', 'REMOTE_PORT' => 54321,
        'SERVER_PORT' => 8282];
    foreach ($headers as $name => $value) {
        $server['HTTP_' . str_replace('-', '_', strtoupper($name))] = $value;
    }
    return serialize(['get' => variables($query), 'server' => $server, 'cookie' => cookies($headers['cookie'] ?? '')]);
}

function names(string $json): string
{
    $result = '';
    foreach (json_decode($json, true, 512, JSON_THROW_ON_ERROR) as $name) {
        $result .= preg_replace('/^a:1:\{(.*)N;\}$/s', '$1', serialize([$name => null]));
    }
    return $result;
}

function json_valid(string $json): string
{
    json_decode($json, true);
    return json_last_error() === JSON_ERROR_NONE ? '1' : '0';
}

$operations = [
    'reserialize' => fn($s) => serialize(unserialize_or_refuse($s)),
    'merge' => merge(...),
    'json' => to_json(...),
    'parse_str' => fn($s) => serialize(variables($s)),
    'cookie' => fn($s) => serialize(cookies($s)),
    'url_query' => query_of(...),
    'ws_connect' => ws_connect(...),
    'key' => fn($s) => preg_replace('/^a:1:\{(.*)N;\}$/s', '$1', serialize([$s => null])),
    'float' => fn($s) => serialize(unpack('e', $s)[1]),
    'json_valid' => json_valid(...),
    'names' => names(...),
];

while (($line = fgets(STDIN)) !== false) {
    $words = explode(' ', rtrim($line, "\n"));
    $operation = array_shift($words);
    try {
        echo bin2hex($operations[$operation](...array_map(hex2bin(...), $words))), "\n";
    } catch (Throwable $e) {
        echo "!\n";
    }
}
