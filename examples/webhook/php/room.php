<?php
// A chat room behind meepo-worker, in plain PHP:
//
//     MEEPO_SECRET=hush PHP_CLI_SERVER_WORKERS=4 php -S 127.0.0.1:8080 room.php

declare(strict_types=1);

// How old an event may be, in seconds: what is older may have been recorded and sent again by a stranger.
const MOST_SECONDS = 300;

/** Whether an event is signed with a key, as Standard Webhooks says, and its other headers say what is signed. */
function is_signed(string $secret, string $body): bool
{
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6)) : $secret;
    $event = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $sent = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (!ctype_digit($sent) || abs(time() - (int) $sent) > MOST_SECONDS) {
        return false;
    }
    $right = 'v1,' . base64_encode(hash_hmac('sha256', "$event.$sent.$body", $key, true));
    // There are several while the key is changed.
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $given) {
        if (hash_equals($right, $given)) {
            // Of the headers only the id is signed, in which are the client and the kind.
            return ($_SERVER['HTTP_CE_ID'] ?? '') === $event && is_id_of($event);
        }
    }
    return false;
}

/** Whether an id is that of an event of this client and this kind. That of a message ends with its number. */
function is_id_of(string $event): bool
{
    $client = $_SERVER['HTTP_CE_SUBJECT'] ?? '';
    if (!str_starts_with($event, "$client:")) {
        return false;
    }
    $tail = substr($event, strlen($client) + 1);
    return ($_SERVER['HTTP_CE_TYPE'] ?? '') === 'meepo.client.' . (ctype_digit($tail) ? 'message' : $tail);
}

/** Text is a reply to the client, or why it is turned away; a list is commands. */
function answer(int $status, string|array $what): never
{
    http_response_code($status);
    header('Content-Type: ' . (is_array($what) ? 'application/json' : 'text/plain; charset=utf-8'));
    echo is_array($what) ? json_encode($what, JSON_THROW_ON_ERROR) : $what;
    exit;
}

function to_others(string $client, string $text): array
{
    return ['do' => 'send', 'to' => ['group' => 'lobby', 'except' => [$client]], 'text' => $text];
}

function opened(string $client, array $hello): never
{
    parse_str($hello['query'], $query);
    $name = $query['name'] ?? '';
    if (!is_string($name) || $name === '') {
        answer(400, 'who are you?');
    }
    answer(200, [
        ['do' => 'session', 'set' => ['name' => $name]],
        ['do' => 'join', 'group' => 'lobby'],
        to_others($client, "$name is here"),
        ['do' => 'send', 'text' => "hello $name"],
    ]);
}

function message(string $client, string $name, string $text): never
{
    if ($text === '/quit') {
        answer(200, [['do' => 'close', 'code' => 4000, 'reason' => "goodbye $name"]]);
    }
    if (str_starts_with($text, '/name ')) {
        $new = substr($text, 6);
        answer(200, [
            ['do' => 'session', 'set' => ['name' => $new]],
            ['do' => 'send', 'to' => ['group' => 'lobby'], 'text' => "$name is $new now"],
        ]);
    }
    answer(200, [to_others($client, "$name: $text")]);
}

// What a mistake prints must not reach clients, and once something is printed it would go out with 200 instead of 500.
ini_set('display_errors', '0');

$body = file_get_contents('php://input');
$secret = getenv('MEEPO_SECRET') ?: '';
if ($secret !== '' && !is_signed($secret, $body)) {
    answer(401, 'the signature is wrong');
}

// An event that may have come before says so in $_SERVER['HTTP_CE_MEEPOREDELIVERED']. An application to which that matters
// keeps what it has answered, in its database under the event's id, $_SERVER['HTTP_CE_ID'], which is checked above.
$client = $_SERVER['HTTP_CE_SUBJECT'] ?? '';
$session = json_decode(rawurldecode($_SERVER['HTTP_CE_MEEPOSESSION'] ?? '{}'), true);
$name = $session['name'] ?? 'nobody';
$is_text = str_starts_with($_SERVER['CONTENT_TYPE'] ?? '', 'text/plain');

match ($_SERVER['HTTP_CE_TYPE'] ?? '') {
    'meepo.client.opened' => opened($client, json_decode($body, true)),
    'meepo.client.message' => $is_text ? message($client, $name, $body) : answer(200, 'text only, please'),
    'meepo.client.closed' => answer(200, [to_others($client, "$name has left")]),
    default => answer(204, ''),
};
