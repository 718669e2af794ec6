/* chatframe.h - the words around the turns of a chat, as published (LWM lwm/vision_chat.py, scripts/eval_needle.py):
 *
 *	<s>You are a helpful assistant. USER: question ASSISTANT: answer</s>USER: question ASSISTANT: answer</s>
 *	<s>You are a helpful assistant. USER: question\n<vision>codes</vision> ASSISTANT: answer</s>
 *
 * The published code holds one question and one answer; that </s> ends each answer, and that a later turn begins with USER:, is how
 * lwm-sample asks, and data are made. What lies between two ids of the frame (<s>, codes, the begin of an answer) is tokenised as
 * one text.
 */
#ifndef LWM_DATA_CHATFRAME_H
#define LWM_DATA_CHATFRAME_H

#define LWM_CHAT_SYSTEM "You are a helpful assistant." /* then one space */
#define LWM_CHAT_USER "USER: "
#define LWM_CHAT_ASSISTANT " ASSISTANT:"

#endif
